"""`cdkd distill --students`: several students of one teacher in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cdkd_ext.cli.configured import (
    FileOptions,
    gives_output,
    naming_stops,
    parse_configuration,
    training_parser,
)
from cdkd_ext.errors import check, fail
from cdkd_ext.training import DistillationConfig, distill_students, read_config
from cdkd_ext.training.shared import NAME, read_students


def split_students(arguments: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """The files behind `--students`, and the other arguments; None if there is no such option.

    The folder of students behind `--resume` stands for its students.
    """
    files: list[str] = []
    rest: list[str] = []
    given = reading = False
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--students":
            given = reading = True
            files += [value] if value else []
        elif reading and not argument.startswith("--"):
            files.append(argument)
        else:
            reading = False
            rest.append(argument)
    check(not given or files, "students", "none", "a YAML file for each student")
    beside = given and _without_resume(rest)[1]
    check(
        not beside,
        "students",
        f"files beside --resume {beside}",
        "one of the two: a folder names its students",
    )
    return (files if given else _resumed(rest)), rest


def run_students(files: Sequence[str], arguments: Sequence[str]) -> None:
    """Run `cdkd distill --students`.

    Args:
        files: a YAML file of options for each student, or the config.yaml of each run to go on with.
        arguments: the other options, which hold for all students unless their file says otherwise.

    Raises:
        InputError: a file cannot be read, or students differ in what they share.
        CommandError: the loss became infinite or NaN, Ctrl-C, or SIGTERM.
    """
    arguments, resumed = _without_resume(arguments)
    common = _config(arguments)
    if resumed and gives_output(arguments):
        fail(
            "output",
            common.output,
            f"nothing beside --resume {resumed}: several students go on where they are",
        )
    configs = []
    for file in files:
        given = read_config(file)
        options = ["--config", FileOptions.of(file, given)]
        # of a run to go on with, what is typed changes it
        own = [*options, *arguments] if resumed else [*arguments, *options]
        config = _config(own)
        if resumed:
            config = replace(config, output=str(Path(file).parent))
        elif "output" not in given:
            config = replace(config, output=str(Path(common.output) / Path(file).stem))
        configs.append(config)
    # the seed that the students began with, whatever their configurations say since
    seed = read_students(resumed)[0] if resumed else common.seed
    with naming_stops():
        distill_students(configs, seed=seed, resume=bool(resumed), folder=resumed or common.output)


def _config(arguments: Sequence[str]) -> DistillationConfig:
    return parse_configuration(training_parser("distill"), DistillationConfig, arguments)[0]


def _resumed(arguments: Sequence[str]) -> list[str] | None:
    _, folder = _without_resume(arguments)
    if not folder or not (Path(folder) / NAME).is_file():
        return None
    return [str(path / "config.yaml") for path in read_students(folder)[1]]


def _without_resume(arguments: Sequence[str]) -> tuple[list[str], str]:
    """The arguments without `--resume FOLDER`, and the folder, empty if there is none."""
    rest: list[str] = []
    folder = ""
    remaining = iter(arguments)
    for argument in remaining:
        name, _, value = argument.partition("=")
        if name == "--resume":
            folder = value or next(remaining, "")
        else:
            rest.append(argument)
    return rest, folder
