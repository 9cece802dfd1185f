"""`cdkd study`."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from cdkd_ext.cli.configured import parse
from cdkd_ext.cli.parsing import COMMANDS, CommandError, plain_parser
from cdkd_ext.studies import LspStudy, lsp_study, plan_text
from cdkd_ext.studies.lsp import ROWS, SIZES


def run(arguments: Sequence[str]) -> None:
    """Run a study."""
    if arguments and arguments[0] == "lsp":
        _lsp(arguments[1:])
        return
    parser = plain_parser("study")
    parser.add_argument("study", choices=["lsp"], help="see `cdkd study lsp --help`")
    parser.parse_args(list(arguments))


def _lsp(arguments: Sequence[str]) -> None:
    options = parse(_parser(), arguments)
    data = {name: options[f"data.{name}"] for name in ("root", "train", "train_images", "val", "val_images")}
    plan = LspStudy(
        **data,
        teachers=tuple(options.teacher),
        rows=tuple(options.rows),
        seeds=tuple(options.seeds),
        sizes=tuple(options.sizes),
        models=tuple(options.models),
        epochs=options.epochs,
        views=options.views,
        precision=options.precision,
        options=options.options,
    )
    if options.list:
        print(plan_text(plan, options.output, jobs=options.jobs))
        return
    found = lsp_study(
        plan, options.output, shelf=options.shelf, jobs=options.jobs, train=not options.report_only
    )
    if found.failed:
        names = ", ".join(one.name for one in found.failed)
        raise CommandError(
            f"{len(found.failed)} runs did not finish: {names}; see log.txt in their folders", 1
        )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="cdkd study lsp",
        description="Train students for small crops alone and with a teacher, and compare them with intervals.  "
        f"Example: {COMMANDS['study'].example}",
        exit_on_error=False,
        allow_abbrev=False,
    )
    default = LspStudy(root="", rows=("alone",))
    parser.add_argument("--data.root", type=str, required=True, help="folder of the data set")
    for name, what in (("train", "to train on"), ("val", "to measure on")):
        value, images = getattr(default, name), getattr(default, f"{name}_images")
        parser.add_argument(f"--data.{name}", type=str, default=value, help=f"annotations {what}")
        parser.add_argument(f"--data.{name}_images", type=str, default=images, help="their images")
    parser.add_argument(
        "--teacher",
        nargs="+",
        type=str,
        default=[],
        help="files of networks that teach: ONNX, YAML, checkpoint",
    )
    parser.add_argument(
        "--shelf", nargs="+", type=str, default=[], help="files of further networks to compare with"
    )
    parser.add_argument(
        "--rows", nargs="+", type=str, default=[], help=f"kinds of students; all: {', '.join(ROWS)}"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(default.seeds), help="of the students")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="of the crops in pixels")
    parser.add_argument("--models", nargs="+", type=str, default=list(default.models), help="networks")
    parser.add_argument("--epochs", type=int, default=default.epochs, help="of a student with all labels")
    parser.add_argument("--views", type=int, default=default.views, help="stored views per person; 0: afresh")
    parser.add_argument("--precision", type=str, default=default.precision, help="no, bf16 or fp16")
    parser.add_argument("--options", type=str, help="YAML file of further options for all students")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, each with one thread")
    parser.add_argument("--output", type=str, default="runs/lsp_study", help="folder of the study")
    parser.add_argument("--list", action="store_true", help="print the commands and an estimate, run nothing")
    parser.add_argument("--report_only", action="store_true", help="train nothing, report what there is")
    return parser
