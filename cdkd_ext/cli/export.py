"""`cdkd export`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.cli.configured import configured_parser, parse
from cdkd_ext.deployment import export_network

_NAMES = ("weights", "output", "format", "precision", "flip_test", "opset", "license", "data")


def run(arguments: Sequence[str]) -> None:
    """Write a trained network as a file that runs anywhere."""
    parser = configured_parser("export")
    parser.add_argument("weights", type=str, help="the folder of a run, or a checkpoint of this package")
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    parser.add_function_arguments(export_network, skip={"weights"})
    options = parse(parser, arguments)
    print(export_network(**{name: options[name] for name in _NAMES}))
