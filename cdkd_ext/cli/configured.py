"""What the commands with typed configurations share; it needs the extra `train`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from cdkd_ext.cli.parsing import COMMANDS, INTERRUPTED, TERMINATED, CommandError, suggestion, with_suggestions
from cdkd_ext.errors import InputError, check, fail, shortened
from cdkd_ext.models import ModelOptions
from cdkd_ext.recipes import list_recipes, load_recipe
from cdkd_ext.training import InterruptedRun, NonFiniteLossError, TrainingConfig, read_config, train

Config = TypeVar("Config", bound=TrainingConfig)

_MISFIT = re.compile(r'Parser key "([^"]+)": Expected a (.+)\. Got value: (.*)')
# a section that may be left out, with something in it
_LACKS = re.compile(
    r'Parser key "([^"]+)": Does not validate .* the following arguments are required: ([\w, ]+?) - .*'
)
# an option in a file or in JSON; on the command line argparse says so
_UNKNOWN = re.compile(
    r"""(?:Group '([^']+)' does not accept option|(?:Parser key "([^"]+)": Does not validate .*)?Option) """
    r"""'([^']+)'(?: is not accepted.*)?"""
)
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "tuple": 'a list, such as "[32, 32]"',
}


class FileOptions(str):
    """A file's options as JSON for `--config`, which know their file for messages.

    Attributes:
        file: its path.
    """

    file: str

    @classmethod
    def of(cls, file: str, options: Mapping[str, Any]) -> FileOptions:
        """Options that were read from a file."""
        text = cls(json.dumps(options, default=str))
        text.file = file
        return text


def configured_parser(name: str) -> ArgumentParser:
    """The parser of a command, so far without options."""
    return ArgumentParser(
        prog=f"cdkd {name}", description=COMMANDS[name].description, exit_on_error=False, allow_abbrev=False
    )


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse, with configurations as their dataclasses.

    Raises:
        InputError: an option is unknown or has a value of another type.
    """
    try:
        # jsonargparse reads no heirs of str
        return parser.instantiate(parser.parse_args([str(argument) for argument in arguments]))
    except InputError:
        raise
    # jsonargparse lets some of what damaged YAML raises through, whatever it is
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        _check_known(message, parser, arguments, error)
        message = shortened(_in_words(message))
        raise InputError(with_suggestions(message, parser._option_string_actions)) from error


def _check_known(message: str, parser: ArgumentParser, arguments: Sequence[str], error: Exception) -> None:
    """Check that jsonargparse does not complain of an unknown option in a file; name the file and the nearest option."""
    found = _UNKNOWN.fullmatch(message)
    if found is None:
        return
    name = ".".join(part for part in found.groups() if part)
    files = [one for one in arguments if isinstance(one, FileOptions) and _holds(json.loads(one), name)]
    place = files[0].file if files else "options"
    # neither its own section nor a section's help is another name for it
    known = [
        option
        for option in parser._option_string_actions
        if not option.endswith(".help") and not f"--{name}".startswith(f"{option}.")
    ]
    near = suggestion([f"--{name}"], known)
    raise InputError(f"{place}: expected options of {parser.prog}, got {name}{near}") from error


def _holds(options: Any, name: str) -> bool:
    """Whether options in sections have one by its whole name."""
    for part in name.split("."):
        if not isinstance(options, dict) or part not in options:
            return False
        options = options[part]
    return True


def _in_words(message: str) -> str:
    """What jsonargparse says of a value of another type or of options that lack one, as this package says it."""
    lacks = _LACKS.fullmatch(message)
    if lacks is not None:
        section, missing = lacks.groups()
        return f"{section}.{missing.split(', ')[0]}: expected a value beside the other options of {section}, got nothing"
    found = _MISFIT.fullmatch(message)
    if found is None:
        return message
    name, kind, got = found.groups()
    literal = re.fullmatch(r"typing\.Literal\[(.*)\]", kind)
    expected = (
        f"one of {literal[1]}"
        if literal
        else _KINDS.get(kind.removeprefix("<class '").removesuffix("'>"), kind)
    )
    return f"{name}: expected {expected}, got {got}"


def run_training(name: str, config_class: type[TrainingConfig], arguments: Sequence[str]) -> None:
    """Run `cdkd train` or `cdkd distill`.

    Raises:
        CommandError: the loss became infinite or NaN, Ctrl-C, or SIGTERM.
    """
    config, options = parse_configuration(training_parser(name), config_class, arguments)
    if options.resume and not gives_output(arguments):
        # not where the run says that it is: it may have been moved or copied
        config = replace(config, output=options.resume)
    with naming_stops():
        train(config, resume=options.resume or False)


def gives_output(arguments: Sequence[str]) -> bool:
    """Whether the user says where a run is, in an option or in a file of options; a recipe's folder does not count."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    files = [value for name, value in pairwise(words) if name == "--config" and _is_file(value)]
    typed = any(argument.partition("=")[0] == "--output" for argument in arguments)
    return typed or any("output" in read_config(file) for file in files)


def training_parser(name: str) -> ArgumentParser:
    """The parser of `cdkd train` or `cdkd distill`, so far without the configuration's options."""
    parser = configured_parser(name)
    parser.add_argument("--resume", type=str, help="folder of a run to go on with, there or in --output")
    if name == "distill":
        parser.add_argument(
            "--students",
            nargs="+",
            help="YAML files of options, one for each student of one loader and teacher",
        )
    return parser


@contextmanager
def naming_stops() -> Iterator[None]:
    """Turn what ends a training before its end into the command's line and status.

    Raises:
        CommandError: the loss became infinite or NaN, Ctrl-C, or SIGTERM.
    """
    try:
        yield
    except NonFiniteLossError as error:
        raise CommandError(str(error), 3) from error
    except InterruptedRun as error:
        raise CommandError(str(error), TERMINATED if error.terminated else INTERRUPTED) from error


def parse_configuration(
    parser: ArgumentParser, config_class: type[Config], arguments: Sequence[str]
) -> tuple[Config, Namespace]:
    """Add a configuration's options to a parser and parse; return the configuration, and all options.

    Raises:
        InputError: an option is unknown or has a value of another type, or nothing where it needs one.
    """
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    parser.add_argument("--recipe", type=str, help=f"a YAML file of the package: {', '.join(list_recipes())}")
    parser.add_class_arguments(config_class)
    expanded = expand(arguments)
    if "teacher" not in {field.name for field in fields(config_class)}:
        _check_untaught(expanded)
    options = parse(parser, expanded)
    config = config_class(**{field.name: options[field.name] for field in fields(config_class)})
    check_filled(config)
    return config, options


def _check_untaught(arguments: Sequence[str]) -> None:
    """Check that a run to go on with is none that has a teacher, whose options `cdkd train` does not know."""
    resumed = [argument for argument in arguments if argument.startswith("--resume=")]
    if resumed and json.loads(arguments[arguments.index("--config") + 1]).get("teacher"):
        folder = resumed[0].partition("=")[2]
        expected = f"the folder of a `cdkd train` run, or `cdkd distill --resume {folder}`"
        fail("resume", f"{folder}, a run with a teacher", expected)


def check_filled(config: Any, place: str = "") -> None:
    """Check that nothing lacks that may not: jsonargparse takes YAML's null for any option."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, name = getattr(config, field.name), place + field.name
        check(value is not None or type(None) in get_args(hints[field.name]), name, "nothing", "a value")
        if is_dataclass(value):
            check_filled(value, f"{name}.")


def expand(arguments: Sequence[str], *, evaluation: bool = False) -> list[str]:
    """Turn `--recipe NAME` and `--resume FOLDER` into the `--config` that they stand for; `--resume` stays.

    A file given as `--config` is read here, for it may be of version 0.1.0.
    """
    expanded: list[str] = []
    resumed: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name not in ("--config", "--recipe", "--resume"):
            expanded.append(argument)
            continue
        value = value or next(rest, "")
        if name == "--recipe":
            recipe = _recipe_of_evaluation(value) if evaluation else load_recipe(value)
            expanded += ["--config", json.dumps(recipe)]
            continue
        if name == "--config":
            expanded += [
                "--config",
                FileOptions.of(value, read_config(value)) if _is_file(value) else value,
            ]
            continue
        path = Path(value) / "config.yaml"
        check(path.is_file(), "resume", repr(value), "the folder of a run, with its config.yaml")
        resumed = [f"--resume={value}", "--config", FileOptions.of(str(path), read_config(path))]
    # first, so that every other option changes it, wherever it was typed
    return resumed + expanded


def _is_file(value: str) -> bool:
    """Whether an option is a file's path and not JSON, which may be longer than any name."""
    try:
        return Path(value).is_file()
    except (OSError, ValueError):
        return False


def _recipe_of_evaluation(name: str) -> dict[str, Any]:
    """What a recipe says about the network and the data: an evaluation has no training to configure."""
    recipe = load_recipe(name, ("model", "data", "flip_test", "simcc_score"))
    known = {field.name for field in fields(ModelOptions)}
    if "model" in recipe:
        recipe["model"] = {key: value for key, value in recipe["model"].items() if key in known}
    return recipe
