"""The command `cdkd`: parses, calls, prints."""

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cdkd_ext import __version__
from cdkd_ext._checks import InputError, check

try:
    from jsonargparse import ArgumentError, ArgumentParser, Namespace

    from cdkd_ext.cuda.inspection import inspect_library, kernel_table
    from cdkd_ext.cuda.launch_plan import LaunchSizes, plan_launches, plan_table
    from cdkd_ext.demo import DemoConfig, run_demo
    from cdkd_ext.info import describe_installation
    from cdkd_ext.recipes import list_recipes, recipe_path
    from cdkd_ext.training import (
        DataConfig,
        DistillationConfig,
        InterruptedRun,
        NonFiniteLossError,
        TrainingConfig,
        evaluate_checkpoint,
        train,
    )
except ModuleNotFoundError as error:
    sys.exit(f"cdkd: {error.name} is missing; the command line needs `pip install 'cdkd-ext[train]'`")


def _expand(arguments: Sequence[str]) -> list[str]:
    """Turn `--recipe NAME` and `--resume FOLDER` into the `--config FILE` that they stand for; `--resume` stays."""
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name not in ("--recipe", "--resume"):
            expanded.append(argument)
            continue
        value = value or next(rest, "")
        if name == "--recipe":
            path = recipe_path(value)
        else:
            path = Path(value) / "config.yaml"
            check(path.is_file(), "resume", repr(value), "the folder of a run, with its config.yaml")
            expanded.append(f"--resume={value}")
        expanded += ["--config", str(path)]
    return expanded


def _train(options: Namespace) -> None:
    _fit(TrainingConfig, options)


def _distill(options: Namespace) -> None:
    _fit(DistillationConfig, options)


def _fit(config_class: type[TrainingConfig], options: Namespace) -> None:
    config = config_class(**{field.name: options[field.name] for field in fields(config_class)})
    train(config, resume=bool(options.resume))


def _eval(options: Namespace) -> None:
    report = evaluate_checkpoint(
        options.weights, options.data, flip_test=options.flip_test, output=options.output
    )
    width = max(map(len, report["pckh_per_joint"]))
    for joint, value in report["pckh_per_joint"].items():
        print(f"{joint:<{width}}  {value:6.2f}")
    print(
        f"{'mean':<{width}}  {report['pckh']:6.2f}   PCKh@0.5, {report['people']} people, {report['reference']}"
    )


def _info(options: Namespace) -> None:
    if options.launch_plan:
        return print(plan_table(plan_launches(options.sizes)))
    if options.kernels:
        return print(kernel_table(inspect_library()))
    info = describe_installation()
    print(json.dumps(info, indent=2) if options.json else _lines(info))


def _demo(options: Namespace) -> None:
    run_demo(DemoConfig(**{field.name: options[field.name] for field in fields(DemoConfig)}))


def _lines(info: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in info.items():
        nested = isinstance(value, dict)
        lines.append(f"{indent}{name}:" + ("" if nested else f" {value}"))
        if nested:
            lines.append(_lines(value, indent + "  "))
    return "\n".join(lines)


_COMMANDS = {
    "demo": (
        _demo,
        "draw figures, train a teacher, a plain and a distilled student, and write a report",
        "cdkd demo --output runs/demo",
    ),
    "train": (
        _train,
        "train a teacher or a plain student",
        "cdkd train --recipe lsp_teacher --data.root lsp",
    ),
    "distill": (
        _distill,
        "train a student with a teacher",
        "cdkd distill --recipe lsp_student --data.root lsp --teacher runs/lsp_teacher",
    ),
    "eval": (_eval, "measure a checkpoint's PCKh@0.5", "cdkd eval runs/lsp_student --data.root lsp"),
    "info": (_info, "show the build, the devices and the registered operators", "cdkd info"),
}


def _build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="cdkd",
        description="Low-resolution human pose estimation by cross-domain knowledge distillation.",
        exit_on_error=False,
    )
    parser.add_argument("--version", action="version", version=f"cdkd-ext {__version__}")
    commands = parser.add_subcommands(dest="command")
    parsers = {}
    for name, (_, purpose, example) in _COMMANDS.items():
        parsers[name] = ArgumentParser(
            description=f"{purpose[0].upper()}{purpose[1:]}.  Example: {example}", exit_on_error=False
        )
    for name, config_class in (("train", TrainingConfig), ("distill", DistillationConfig)):
        sub = parsers[name]
        sub.add_argument("--config", action="config", help="YAML file of the options below")
        sub.add_argument(
            "--recipe", type=str, help=f"a YAML file of the package: {', '.join(list_recipes())}"
        )
        sub.add_argument("--resume", type=str, help="folder of an interrupted run to go on with")
        sub.add_class_arguments(config_class)
    parsers["eval"].add_argument("weights", type=str, help="checkpoint, or the folder of a run")
    parsers["eval"].add_argument(
        "--data", type=DataConfig, default=DataConfig(), help="pictures and annotations"
    )
    parsers["eval"].add_argument(
        "--flip_test", type=bool, default=True, help="average with the mirrored picture"
    )
    parsers["eval"].add_argument(
        "--output", type=str | None, default=None, help="also write the result as JSON"
    )
    parsers["info"].add_argument("--json", action="store_true", help="print JSON")
    parsers["info"].add_argument(
        "--launch-plan",
        action="store_true",
        help="run the CUDA kernels on the CPU; print launches and bytes moved",
    )
    parsers["info"].add_argument(
        "--sizes", type=LaunchSizes, default=LaunchSizes(), help="of the launch plan"
    )
    parsers["info"].add_argument(
        "--kernels",
        action="store_true",
        help="print registers, occupancy and loads of the compiled CUDA kernels",
    )
    parsers["demo"].add_class_arguments(DemoConfig)
    for name, (_, purpose, _) in _COMMANDS.items():
        commands.add_subcommand(name, parsers[name], help=purpose)
    return parser


def _dispatch(arguments: Sequence[str] | None) -> None:
    parser = _build_parser()
    try:
        parsed = parser.parse_args(_expand(sys.argv[1:] if arguments is None else arguments))
    except ArgumentError as error:
        raise InputError(" ".join(str(error).split())) from error
    options = parser.instantiate(parsed)[parsed.command]
    _COMMANDS[parsed.command][0](options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 2 for a mistake in the input, 3 for a loss that is not finite, 130 for Ctrl-C.
    """
    try:
        _dispatch(arguments)
    except InputError as error:
        # an error from a loading process carries that process's traceback before its own last line
        status, message = 2, str(error).strip().splitlines()[-1].removeprefix("cdkd_ext._checks.InputError: ")
    except NonFiniteLossError as error:
        status, message = 3, str(error)
    except InterruptedRun as error:
        status, message = 130, str(error)
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    else:
        return 0
    print(f"cdkd: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
