"""Measurements as columns of text, and these columns for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.harness.case import OURS
from bench.harness.spread import Spread, added, digits, ratio, spread


def print_machine(machine: dict[str, str]) -> None:
    """One line for each property."""
    width = max(map(len, machine))
    for name, value in machine.items():
        print(f"{name:<{width}}  {value}")


def print_bench(bench: dict[str, Any]) -> None:
    """A table for each group of cases, and one of memory."""
    print(f"\n{bench['name']}: {bench['title']}")
    print(f"medians (and quartiles); floor: {floor_parts(bench)}; others against {OURS}")
    for group in groups(bench):
        cases = cases_of(bench, group)
        times = [("time", *(_time(spread(case["samples"][OURS]).median) for case in cases))]
        print()
        print_columns([_titles(cases), _threads(cases), *times, *ratios(cases)])
    measured = [case for case in bench["cases"] if "extra_bytes" in case]
    if measured:
        print("\nmost extra memory, results included, in sizes of the inputs")
        print_columns([_titles(measured), *memory(measured)])
    for case in bench["cases"]:
        for name, shares in case.get("profile", {}).items():
            print(f"\n{case['title']}: share of {OURS}'s time by {name}")
            print_columns([tuple(shares), tuple(f"{share:.1%}" for share in shares.values())])


Column = tuple[str, ...]  # its head, then a text for each case


def ratios(cases: Sequence[dict[str, Any]]) -> list[Column]:
    """Time of ours against the floor, and of each other competitor against ours."""
    columns: list[Column] = []
    if any(case["floor"] for case in cases):
        columns.append(
            (f"{OURS} ÷ floor", *(str(against_floor(case)) if case["floor"] else "" for case in cases))
        )
    for name in dict.fromkeys(name for case in cases for name in (*case["samples"], *case["context"])):
        if name != OURS:
            columns.append((name, *(_against_ours(case, name) for case in cases)))
    return columns


def memory(cases: Sequence[dict[str, Any]]) -> list[Column]:
    """Extra memory of each competitor in sizes of the inputs."""
    columns: list[Column] = []
    for name in dict.fromkeys(name for case in cases for name in case.get("extra_bytes", {})):
        found = [(case.get("extra_bytes", {}).get(name), case["input_bytes"]) for case in cases]
        columns.append((name, *("" if extra is None else digits(extra / size) for extra, size in found)))
    return columns


def against_floor(case: dict[str, Any]) -> Spread:
    """Spread of our time in floors."""
    return ratio(case["samples"][OURS], added(*case["floor"].values()))


def groups(bench: dict[str, Any]) -> list[str]:
    """Names of the groups in order."""
    return list(dict.fromkeys(case["group"] for case in bench["cases"]))


def cases_of(bench: dict[str, Any], group: str) -> list[dict[str, Any]]:
    """Cases of one group."""
    return [case for case in bench["cases"] if case["group"] == group]


def floor_parts(bench: dict[str, Any]) -> str:
    """What the floor is made of, in words."""
    parts = dict.fromkeys(name for case in bench["cases"] for name in case["floor"])
    return " + ".join(parts) or "not measured"


def print_columns(columns: Sequence[Column]) -> None:
    """Columns of equally many texts, the first to the left."""
    lines: list[str] = []
    widths = [max(map(len, column)) for column in columns]
    for first, *rest in zip(*columns, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join((first.ljust(widths[0]), *cells)).rstrip())
    print("\n".join(lines))


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Rows of equally many texts, each column to the left; the first row is the heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _titles(cases: Sequence[dict[str, Any]]) -> Column:
    return ("case", *(case["title"] for case in cases))


def _threads(cases: Sequence[dict[str, Any]]) -> Column:
    return ("threads", *(str(case["threads"]) for case in cases))


def _against_ours(case: dict[str, Any], name: str) -> str:
    samples = {**case["samples"], **case["context"]}.get(name)
    return "" if samples is None else str(ratio(samples, case["samples"][OURS]))


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
