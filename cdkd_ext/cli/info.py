"""`cdkd info`."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from cdkd_ext.cli.parsing import plain_parser
from cdkd_ext.emulation.inspection import inspect_library, kernel_table
from cdkd_ext.emulation.launch_plan import LaunchSizes, plan_launches, plan_table
from cdkd_ext.errors import check, check_option
from cdkd_ext.info import describe_installation

_SIZES = "sizes."


def run(arguments: Sequence[str]) -> None:
    """Show the build, the devices and the registered operators, or what the CUDA kernels do."""
    parser = plain_parser("info")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--launch-plan",
        action="store_true",
        help="run the CUDA kernels on the CPU; print launches and bytes moved",
    )
    parser.add_argument("--sizes", type=_mapping, default={}, help="of the launch plan, as JSON")
    for field in fields(LaunchSizes):
        kind = type(field.default)
        parser.add_argument(
            f"--{_SIZES}{field.name}", type=kind, help=f"one of them (default: {field.default})"
        )
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="print registers, occupancy and loads of the compiled CUDA kernels",
    )
    options = vars(parser.parse_args(list(arguments)))
    if options["launch_plan"]:
        print(plan_table(plan_launches(_launch_sizes(options))))
    elif options["kernels"]:
        print(kernel_table(inspect_library()))
    else:
        info = describe_installation()
        print(json.dumps(info, indent=2) if options["json"] else _lines(info))


def _mapping(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ArgumentTypeError(f"expected sizes by name as JSON, got {text}") from error


def _launch_sizes(options: dict[str, Any]) -> LaunchSizes:
    chosen = dict(options["sizes"])
    for field in fields(LaunchSizes):
        value = options[_SIZES + field.name]
        if value is not None:
            chosen[field.name] = value
    kinds = {field.name: type(field.default) for field in fields(LaunchSizes)}
    for name, value in chosen.items():
        check_option("sizes", name, kinds)
        check(
            type(value) is kinds[name],
            f"sizes.{name}",
            repr(value),
            f"a value of type {kinds[name].__name__}",
        )
    return LaunchSizes(**chosen)


def _lines(info: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in info.items():
        nested = isinstance(value, dict)
        lines.append(f"{indent}{name}:" + ("" if nested else f" {value}"))
        if nested:
            lines.append(_lines(value, indent + "  "))
    return "\n".join(lines)
