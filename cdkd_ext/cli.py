"""The command `cdkd`: parses, calls, prints."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from cdkd_ext import __version__
from cdkd_ext.errors import InputError, check

try:
    from accelerate import PartialState
    from jsonargparse import ArgumentError, ArgumentParser, Namespace

    from cdkd_ext.checkpoints import convert_checkpoint
    from cdkd_ext.emulation.inspection import inspect_library, kernel_table
    from cdkd_ext.emulation.launch_plan import LaunchSizes, plan_launches, plan_table
    from cdkd_ext.demo import DemoConfig, run_demo
    from cdkd_ext.evaluation import evaluate_checkpoint, table
    from cdkd_ext.info import describe_installation
    from cdkd_ext.models import format_profiles, profile_models
    from cdkd_ext.recipes import list_recipes, load_recipe
    from cdkd_ext.training import (
        DistillationConfig,
        InterruptedRun,
        NonFiniteLossError,
        TrainingConfig,
        train,
    )
except ModuleNotFoundError as error:
    sys.exit(f"cdkd: {error.name} is missing; the command line needs `pip install 'cdkd-ext[train]'`")


def _expand(arguments: Sequence[str]) -> list[str]:
    """Turn `--recipe NAME` and `--resume FOLDER` into the `--config` that they stand for; `--resume` stays."""
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name not in ("--recipe", "--resume"):
            expanded.append(argument)
            continue
        value = value or next(rest, "")
        if name == "--recipe":
            # an evaluation has no training to configure
            sections = ("model", "data", "flip_test", "simcc_score") if arguments[0] == "eval" else None
            expanded += ["--config", json.dumps(load_recipe(value, sections))]
            continue
        path = Path(value) / "config.yaml"
        check(path.is_file(), "resume", repr(value), "the folder of a run, with its config.yaml")
        expanded += [f"--resume={value}", "--config", str(path)]
    return expanded


def _train(options: Namespace) -> None:
    _fit(TrainingConfig, options)


def _distill(options: Namespace) -> None:
    _fit(DistillationConfig, options)


def _fit(config_class: type[TrainingConfig], options: Namespace) -> None:
    config = config_class(**{field.name: options[field.name] for field in fields(config_class)})
    train(config, resume=bool(options.resume))


def _eval(options: Namespace) -> None:
    names = ("weights", "data", "model", "flip_test", "simcc_score", "batch_size", "output", "results", "cpu")
    report = evaluate_checkpoint(**{name: options[name] for name in names})
    if PartialState().is_main_process:
        print(table(report))


def _info(options: Namespace) -> None:
    if options.launch_plan:
        return print(plan_table(plan_launches(options.sizes)))
    if options.kernels:
        return print(kernel_table(inspect_library()))
    info = describe_installation()
    print(json.dumps(info, indent=2) if options.json else _lines(info))


def _convert(options: Namespace) -> None:
    names = ("weights", "output", "layout", "model", "joints")
    print(convert_checkpoint(**{name: options[name] for name in names}))


def _models(options: Namespace) -> None:
    profiles = profile_models(
        input_size=options.input_size,
        num_joints=options.num_joints,
        head=options.head,
        split_ratio=options.split_ratio,
        channels_per_joint=options.channels_per_joint,
        names=options.names or None,
    )
    print(
        json.dumps([asdict(profile) for profile in profiles], indent=2)
        if options.json
        else format_profiles(profiles)
    )


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
    "eval": (
        _eval,
        "measure a checkpoint's PCKh or COCO average precision",
        "cdkd eval hrnet.pth --recipe coco_w48_64 --data.root coco --data.boxes boxes.json",
    ),
    "models": (
        _models,
        "list the networks with their parameters and costs",
        "cdkd models --input_size [256,192] --head heatmap",
    ),
    "info": (_info, "show the build, the devices and the registered operators", "cdkd info"),
    "convert": (
        _convert,
        "read a checkpoint of another code base, or write one for it",
        "cdkd convert pose_hrnet_w32_256x256.pth w32.safetensors --joints mpii --model.name hrnet_w32 "
        "--model.head heatmap --model.input_size [256,256]",
    ),
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
    evaluation = parsers["eval"]
    evaluation.add_argument(
        "weights", type=str, help="checkpoint, or the folder of a run (its best checkpoint)"
    )
    evaluation.add_argument("--config", action="config", help="YAML file of the options below")
    evaluation.add_argument(
        "--recipe", type=str, help="take model and data from a recipe (see cdkd train --help)"
    )
    evaluation.add_function_arguments(evaluate_checkpoint, skip={"weights"})
    models = parsers["models"]
    models.add_argument("--input_size", type=tuple[int, int], default=(64, 64), help="height and width")
    models.add_argument("--num_joints", type=int, default=17, help="joints")
    models.add_argument("--head", type=Literal["simcc", "heatmap"], default="simcc", help="kind of output")
    models.add_argument("--split_ratio", type=float, default=3.0, help="SimCC bins per pixel")
    models.add_argument(
        "--channels_per_joint", type=int, default=32, help="SimCC feature maps per joint without upsampling"
    )
    models.add_argument("--json", action="store_true", help="print JSON")
    models.add_argument("names", type=str, nargs="*", help="which networks; all without")
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
    parsers["convert"].add_argument("weights", type=str, help="checkpoint, or the folder of a run")
    parsers["convert"].add_argument("output", type=str, help="the new file")
    parsers["convert"].add_function_arguments(convert_checkpoint, skip={"weights", "output"})
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
