"""`cdkd teacher`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.cli.configured import configured_parser, parse
from cdkd_ext.errors import check_option
from cdkd_ext.evaluation import check_teacher

_NAMES = ("teacher", "data", "options", "people", "output", "cpu")


def run(arguments: Sequence[str]) -> None:
    """Look at a teacher that is not of this package."""
    parser = configured_parser("teacher")
    parser.add_argument("action", type=str, help="check")
    parser.add_argument("teacher", type=str, help="an ONNX file, or a YAML file that describes one")
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    parser.add_function_arguments(check_teacher, skip={"teacher"})
    options = parse(parser, arguments)
    check_option("action", options["action"], ("check",))
    print(check_teacher(**{name: options[name] for name in _NAMES}))
