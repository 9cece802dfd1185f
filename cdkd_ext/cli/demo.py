"""`cdkd demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from cdkd_ext.cli.configured import configured_parser, parse
from cdkd_ext.demo import DemoConfig, run_demo


def run(arguments: Sequence[str]) -> None:
    """Run the demonstration."""
    parser = configured_parser("demo")
    parser.add_class_arguments(DemoConfig)
    options = parse(parser, arguments)
    run_demo(DemoConfig(**{field.name: options[field.name] for field in fields(DemoConfig)}))
