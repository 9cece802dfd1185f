"""`cdkd report`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.cli.configured import configured_parser, parse
from cdkd_ext.reporting import write_report

_NAMES = ("runs", "output", "data", "people", "cases", "cpu")


def run(arguments: Sequence[str]) -> None:
    """Write a page about trained networks."""
    parser = configured_parser("report")
    parser.add_argument(
        "runs", nargs="+", type=str, help="folders of runs; the first one's people are asked about"
    )
    parser.add_function_arguments(write_report, skip={"runs"})
    options = parse(parser, arguments)
    print(f"written to {write_report(**{name: options[name] for name in _NAMES})}")
