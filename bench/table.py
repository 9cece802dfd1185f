"""Measurements as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.case import OURS
from bench.spread import added, ratio, spread


def print_machine(machine: dict[str, str]) -> None:
    """One line for each property."""
    width = max(map(len, machine))
    for name, value in machine.items():
        print(f"{name:<{width}}  {value}")


def print_bench(bench: dict[str, Any]) -> None:
    """A table for each group of cases: time against the floor and of the others against ours, then memory."""
    print(f"\n{bench['name']}: {bench['title']}")
    parts = list(dict.fromkeys(name for case in bench["cases"] for name in case["floor"]))
    print(f"medians (and quartiles); floor: {' + '.join(parts) or 'not measured'}; others against {OURS}")
    for group in dict.fromkeys(case["group"] for case in bench["cases"]):
        cases = [case for case in bench["cases"] if case["group"] == group]
        others = names([case["samples"] for case in cases], but=OURS)
        context = names([case["context"] for case in cases])
        print()
        print_aligned(
            [
                ("case", "threads", OURS, "against floor", *others, *context),
                *map(_row(others, context), cases),
            ]
        )
    if any("extra_bytes" in case for case in bench["cases"]):
        print("\nextra memory at the peak, results included, in sizes of the inputs")
        cases = [case for case in bench["cases"] if "extra_bytes" in case]
        columns = names([case["extra_bytes"] for case in cases])
        print_aligned([("case", *columns), *([case["title"], *memory(case, columns)] for case in cases)])


def names(tables: Sequence[dict[str, Any]], but: str = "") -> list[str]:
    """All keys, each once, in the order of their first appearance."""
    return [name for name in dict.fromkeys(name for table in tables for name in table) if name != but]


def against_floor(case: dict[str, Any], name: str = OURS) -> str:
    """Time of one competitor in floors, or nothing where no floor was measured."""
    return f"{ratio(case['samples'][name], added(*case['floor'].values())):.2f}" if case["floor"] else ""


def memory(case: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """Extra memory of each in sizes of the inputs."""
    extra = case["extra_bytes"]
    return [f"{extra[name] / case['input_bytes']:.2f}" if name in extra else "" for name in columns]


def _row(others: Sequence[str], context: Sequence[str]) -> Any:
    def row(case: dict[str, Any]) -> list[str]:
        ours = case["samples"][OURS]
        times = {**case["samples"], **case["context"]}
        ratios = [f"{ratio(times[name], ours):.2f}" if name in times else "" for name in (*others, *context)]
        return [
            case["title"],
            str(case["threads"]),
            _time(spread(ours).median),
            against_floor(case),
            *ratios,
        ]

    return row


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def print_aligned(rows: Sequence[Sequence[str]]) -> None:
    """Rows of equally many texts in columns, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join((first, *rest)).rstrip())
