"""`cdkd eval`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cdkd_ext.cli.configured import configured_parser, expand, parse
from cdkd_ext.evaluation import evaluate_checkpoint, table


def run(arguments: Sequence[str]) -> None:
    """Measure a checkpoint or an ONNX file; of several processes the first one prints."""
    parser = configured_parser("eval")
    parser.add_argument(
        "weights", type=str, help="checkpoint, the folder of a run (its best checkpoint), or an ONNX file"
    )
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    parser.add_argument(
        "--recipe", type=str, help="take model and data from a recipe (see cdkd train --help)"
    )
    names = parser.add_function_arguments(evaluate_checkpoint, skip={"weights"})
    options = parse(parser, expand(arguments, evaluation=True))
    report = evaluate_checkpoint(**{name: options[name] for name in ("weights", *_top_level(names))})
    if os.environ.get("RANK", "0") == "0":
        print(table(report))


def _top_level(names: Sequence[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}
