"""Writes docs/performance.md from the raw samples.

`python -m bench.harness.report runs/bench.json --output docs/performance.md`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.harness.benchmark import Bench, load, names
from bench.harness.case import OURS
from bench.harness.goals import Goal, what_bounds
from bench.harness.plot import draw
from bench.harness.spread import digits, spread
from bench.harness.table import Column, cases_of, floor_parts, groups, memory, ratios
from cdkd_ext.errors import check
from cdkd_ext.files import replacing

NOTES = Path(__file__).with_name("notes.md")

INTRODUCTION = """\
# Performance

Made by `make bench`, which runs `python -m bench --all --seconds 0.5`, keeps every raw sample in `runs/bench.json` and
writes this page from it. One op alone: `python -m bench.cca_kl --help`; `python -m bench.harness.report A.json B.json …`
puts runs together.

All competitors of a case take turns in one process, in random order; each is first shown to compute the same
numbers. Only ratios are given: the median over the rounds, and its quartiles, of two times taken in the same round.
`1.00` is as fast as `cdkd_ext`, `2.00` takes twice its time. *eager* is `cdkd_ext.ops.reference`; what follows
*eager* after a comma is the way people write the same thing with torch's own functions.

The *floor* is the least time this processor needs: to read the inputs and write the results once, and for the
exponentials, multiply-adds or matrix products alone (`torch.mm` of the same sizes). It is measured in the same rounds,
by loops in `bench/harness/limits.c` that share no code with the package and pay for no call, and its parts are added up as if
nothing overlapped. Logarithms, maxima and sums are not in it. `torch.mm` also stores its products, which
`projector_cosine` need not, so that can go below; beside it stand as many multiply-adds as the registers take.

*Extra memory* is the peak of what a call allocates, results included, counted at malloc, in sizes of all its inputs.
"""


def write_report(found: dict[str, Any], target: Path, notes: str, benches: Sequence[Bench]) -> None:
    """Write the page and, beside it, its figure.

    Args:
        found: what `python -m bench --json` wrote.
        target: the page; the figure has its name with the suffix .png.
        notes: put in as they are, Markdown.
        benches: whose goals are listed.
    """
    figure = target.with_suffix(".png")
    draw(found, figure)
    with replacing(target) as temporary:
        temporary.write_text("\n".join(_page(found, figure.name, notes, benches)))


def merge(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs as one, in which a later measurement of a benchmark replaces an earlier one.

    Raises:
        InputError: they ran on different machines or versions.
    """
    benches = {}
    for run in runs:
        check(
            run["machine"] == runs[0]["machine"], "samples", run["machine"], f"all from {runs[0]['machine']}"
        )
        benches.update({bench["name"]: bench for bench in run["benches"]})
    return {"machine": runs[0]["machine"], "benches": list(benches.values())}


def _page(found: dict[str, Any], figure: str, notes: str, benches: Sequence[Bench]) -> Iterator[str]:
    yield INTRODUCTION
    yield "## Machine\n"
    yield from _table([("", *found["machine"]), ("", *found["machine"].values())])
    yield "\n## Goals\n"
    yield from _table(_goals(found, benches))
    yield f"\n## Growth\n\n![Time against each size]({figure})"
    for bench in found["benches"]:
        yield f"\n## `{bench['name']}`: {bench['title']}\n\nFloor: {floor_parts(bench)}."
        for group in groups(bench):
            yield f"\n### {_heading(bench, group)}\n"
            yield from _table(_columns(bench, group))
        yield from _profiles(bench)
    yield f"\n{notes.strip()}\n"


def _goals(found: dict[str, Any], benches: Sequence[Bench]) -> list[Column]:
    measured = {result["name"]: result["cases"] for result in found["benches"]}
    rows = [("goal", "wanted", "measured", "", "the case's distance from its floor")]
    listed = [(goal, measured.get(bench.name, [])) for bench in benches for goal in bench.goals]
    for goal, cases in listed:
        worst = goal.worst(cases)
        if worst is None:
            rows.append((goal.what, _wanted(goal), "not measured", "", ""))
        else:
            value, row = worst
            verdict = "reached" if goal.reached(value) else "**not reached**"
            rows.append((goal.what, _wanted(goal), digits(value), verdict, what_bounds(row)))
    return list(zip(*rows, strict=True))


def _wanted(goal: Goal) -> str:
    return f"{'≥' if goal.at_least else '≤'} {goal.bound:g}"


def _heading(bench: dict[str, Any], group: str) -> str:
    if group == "paper":
        return "The paper's students"
    return f"Growing {group}" if group in bench["cases"][0]["sizes"] else group.capitalize()


def _columns(bench: dict[str, Any], group: str) -> list[Column]:
    cases = cases_of(bench, group)
    columns = [("case", *(case["title"] for case in cases))]
    if len({case["threads"] for case in cases}) > 1:
        columns.append(("threads", *(str(case["threads"]) for case in cases)))
    if group in cases[0]["sizes"]:
        times = [spread(case["samples"][OURS]).median for case in cases]
        columns.append((f"{OURS}, the first = 1", *(digits(time / times[0]) for time in times)))
    columns += ratios(cases)
    columns += [(f"memory: {name}", *cells) for name, *cells in memory(cases)]
    return columns


def _profiles(bench: dict[str, Any]) -> Iterator[str]:
    """Where our time goes, for the cases that were profiled: a row for each part, a column for each case."""
    cases = [case for case in bench["cases"] if case.get("profile")]
    for name in dict.fromkeys(name for case in cases for name in case["profile"]):
        parts = dict.fromkeys(part for case in cases for part in case["profile"][name])
        yield f"\n### Share of {OURS}'s time by {name}\n"
        shares = [case["profile"][name] for case in cases]
        yield from _table(
            [
                (name, *parts),
                *(
                    (case["title"], *(f"{share[part]:.1%}" if part in share else "" for part in parts))
                    for case, share in zip(cases, shares, strict=True)
                ),
            ]
        )


def _table(columns: Sequence[Column]) -> Iterator[str]:
    head, *rows = zip(*columns, strict=True)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def main() -> None:
    """Write the page as a program."""
    parser = argparse.ArgumentParser(prog="python -m bench.harness.report", description=__doc__)
    parser.add_argument(
        "samples", type=Path, nargs="+", help="what --json wrote; later files replace earlier ones"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, in Markdown")
    parser.add_argument("--notes", type=Path, default=NOTES, help="Markdown to put at the end")
    options = parser.parse_args()
    found = merge([json.loads(path.read_text()) for path in options.samples])
    write_report(found, options.output, options.notes.read_text(), [load(name) for name in names()])


if __name__ == "__main__":
    main()
