"""`cdkd convert`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.checkpoints import convert_checkpoint
from cdkd_ext.cli.configured import configured_parser, parse


def run(arguments: Sequence[str]) -> None:
    """Read a checkpoint of another code base, or write one for it."""
    parser = configured_parser("convert")
    parser.add_argument("weights", type=str, help="checkpoint, or the folder of a run")
    parser.add_argument("output", type=str, help="the new file")
    parser.add_function_arguments(convert_checkpoint, skip={"weights", "output"})
    options = parse(parser, arguments)
    names = ("weights", "output", "layout", "model", "joints")
    print(convert_checkpoint(**{name: options[name] for name in names}))
