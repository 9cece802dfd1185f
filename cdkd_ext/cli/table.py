"""`cdkd table`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cdkd_ext.cli.configured import parse_configuration, training_parser
from cdkd_ext.cli.parsing import CommandError, Parser, plain_parser
from cdkd_ext.errors import check
from cdkd_ext.studies import RunReport, StudyRun, run_study
from cdkd_ext.studies.option_file import located, read_options
from cdkd_ext.tables import PaperTable, Plan, load_table, made_otherwise, measure_rows, row_costs, study_runs
from cdkd_ext.tables.page import Sheet, format_table, write_table
from cdkd_ext.tables.plan import ROOT
from cdkd_ext.training import DistillationConfig, TrainingConfig

_EPILOG = "Any other option is one of `cdkd train` and goes to every training, such as --epochs 2 or --data.workers 8."


def run(arguments: Sequence[str]) -> None:
    """List a table of the paper, and run, measure and write what `--data.root` allows.

    Raises:
        CommandError: a training failed.
    """
    parser = _parser()
    own, words = _divided(arguments, parser)
    options = parser.parse_args(own)
    table = load_table(options.number)
    if options.against:
        table = table.compared_with(options.against)
    small = options.scale == "small"
    plan = Plan(
        root=_absolute(options.root) or ROOT,
        seeds=tuple(options.seeds or ((0, 1) if small else (0,))),
        scale=options.scale,
        equalised=options.protocol == "equalised",
        search=options.search,
        weights=_absolute(options.weights),
        options=tuple(words),
    )
    folder = Path(options.output or f"runs/tables_{'equalised' if plan.equalised else plan.scale}")
    runs = study_runs(table, plan, options.rows)
    if options.root or words:
        _check(runs)
    if options.list:
        print("\n".join(one.line(str(folder)) for one in runs))
        return
    check(not options.root or Path(options.root).is_dir(), "data.root", options.root, "an existing folder")
    reports = run_study(runs, folder, jobs=options.jobs) if options.root else []
    _show(table, plan, folder, options.rows, write=bool(options.root))
    _raise(reports)


def _divided(arguments: Sequence[str], parser: Parser) -> tuple[list[str], list[str]]:
    """What is the command's own, and the trainings' options, whose values are not taken for a table's number."""
    own: list[str] = []
    words: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not argument.startswith("--") or parser.knows(name):
            own.append(argument)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                # the trainings' parser says whether it lacks a value or is unknown
                words.append(argument)
                continue
            value = rest.pop(0)
        # every run has a folder of its own
        if name == "--config" and Path(value).is_file():
            words += [name, json.dumps(read_options("config", value))]
        else:
            words += [name, located(name.removeprefix("--"), value)]
    return own, words


def _absolute(path: str | None) -> str | None:
    """A path that means the same in the folder of a run."""
    return None if path is None else str(Path(path).absolute())


def _parser() -> Parser:
    parser = plain_parser("table")
    parser.epilog = _EPILOG
    parser.add_argument("number", help="1 to 10, or I to X")
    parser.add_argument(
        "--data.root", dest="root", help="folder of the people: MPII or COCO, or at small scale any"
    )
    parser.add_argument("--rows", nargs="+", help="names of some rows; all without")
    parser.add_argument(
        "--against", nargs="+", help="rows to compare all of their crop size with, in place of the paper's"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="of every row (default: 0; at small scale 0 1)")
    parser.add_argument(
        "--scale", choices=["full", "small"], default="full", help="the paper's networks, or small ones"
    )
    parser.add_argument(
        "--protocol",
        choices=["paper", "equalised"],
        default="paper",
        help="at full scale: epochs and batches",
    )
    parser.add_argument(
        "--search", action="store_true", help="at small scale: find each system's learning rate first"
    )
    parser.add_argument("--weights", help="folder of ImageNet weights, at full scale")
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at a time, of one thread each (default: 1)"
    )
    parser.add_argument("--output", help="folder of the runs and results (default: runs/tables_SCALE)")
    parser.add_argument("--list", action="store_true", help="print the trainings' commands, and run nothing")
    return parser


def _check(runs: Sequence[StudyRun]) -> None:
    """Parse the words of a training of each kind as its command will, before any starts."""
    for run in {run.kind: run for run in runs}.values():
        kind = DistillationConfig if run.kind == "distill" else TrainingConfig
        config, _ = parse_configuration(training_parser(run.kind), kind, run.command[1:])
        config.validate()


def _show(table: PaperTable, plan: Plan, folder: Path, names: Sequence[str] | None, *, write: bool) -> None:
    rows = table.chosen(names)
    # the files keep what earlier calls measured of other rows
    measured = measure_rows(table, plan, folder, None if write else names, intervals=write, planned=write)
    for name in made_otherwise(table, plan, folder) if write else ():
        print(f"{name}: left out, its runs in {folder} are of other people or options")
    costs = row_costs(table.rows, scale=plan.scale, equalised=plan.equalised)
    chosen = {row.name: measured[row.name] for row in rows if row.name in measured}
    print(format_table(Sheet(table, rows, plan, costs, chosen)))
    if write:
        kept = [row for row in table.rows if row in rows or row.name in measured]
        written = write_table(Sheet(table, kept, plan, costs, measured), folder)
        print(f"written: {', '.join(map(str, written))}")


def _raise(reports: Sequence[RunReport]) -> None:
    lacking = [report for report in reports if report.state != "finished"]
    if lacking:
        lines = "; ".join(f"{report.name} {report.state}: {report.message}" for report in lacking)
        raise CommandError(f"{len(lacking)} of {len(reports)} runs did not finish: {lines}", 1)
