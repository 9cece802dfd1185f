"""`cdkd export`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.cli.configured import configured_parser, parse
from cdkd_ext.deployment import export_network, write_web_page
from cdkd_ext.deployment.web import check_new_folder, check_runtime
from cdkd_ext.errors import check

_NAMES = ("weights", "output", "format", "precision", "flip_test", "opset", "license", "data")


def run(arguments: Sequence[str]) -> None:
    """Write a trained network as a file that runs anywhere."""
    parser = configured_parser("export")
    parser.add_argument("weights", type=str, help="the folder of a run, or a checkpoint of this package")
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    parser.add_function_arguments(export_network, skip={"weights"})
    parser.add_argument("--web", type=str, help="also write a new folder with a page that runs the ONNX file")
    parser.add_argument(
        "--web_runtime", type=str, help="the folder dist of the npm package onnxruntime-web, for --web"
    )
    options = parse(parser, arguments)
    if options.web:
        check_runtime(options.web_runtime)
        check_new_folder(options.web)
        check(options.format == "onnx", "format", options.format, "onnx, which the page of --web runs")
    report = export_network(**{name: options[name] for name in _NAMES})
    print(report)
    if options.web:
        page = write_web_page(report.path, options.web, options.web_runtime)
        print(f"written to {page}; try it with: python -m http.server --directory {options.web}")
