"""The exception for a mistake in what a caller gave, and checks with one message form: argument, expected, got."""

from __future__ import annotations

import builtins
import reprlib
from collections.abc import Iterable
from typing import NoReturn

_RAISED = "cdkd_ext.errors.InputError: "
_CONTAINERS = reprlib.Repr()
_CONTAINERS.maxlist = _CONTAINERS.maxdict = 40
_CONTAINERS.maxlevel = 3
_CONTAINERS.maxstring = _CONTAINERS.maxother = _CONTAINERS.maxlong = 100


class InputError(ValueError):
    """A mistake in what the caller gave: the message names the argument, what was expected and what was given.

    The command line prints it as one line.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM, such as a cluster's before it takes the machine away; what handles Ctrl-C handles it."""


def shortened(text: str, longest: int = 800) -> str:
    """Return a text without its middle where it is too long to be read."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def one_line(error: InputError) -> str:
    """The message; one from a loading process carries that process's traceback before it."""
    message = str(error).strip()
    if "Traceback (most recent call last)" in message:
        message = message.rpartition(_RAISED)[2] if _RAISED in message else message.splitlines()[-1]
    # names of files may have line breaks
    return "\\n".join(message.splitlines())


def fail(argument: str, got: object, expected: str) -> NoReturn:
    """Raise InputError naming the argument, what was expected and what was given."""
    # a file of some hundred bytes can describe a list that no memory holds once it is written out
    text = _CONTAINERS.repr(got) if isinstance(got, (list, dict)) else str(got)
    raise InputError(f"{shortened(argument)}: expected {shortened(expected)}, got {shortened(text)}")


def check(condition: object, argument: str, got: object, expected: str) -> None:
    """Fail unless `condition` is true."""
    if not condition:
        fail(argument, got, expected)


def check_option(argument: str, value: object, options: Iterable[object]) -> None:
    """Fail unless `value` is one of `options`."""
    options = list(options)
    if value not in options:
        fail(argument, repr(value), "one of " + ", ".join(map(repr, options)))


def check_type(argument: str, value: object, types: type | tuple[type, ...], expected: str) -> None:
    """Raise TypeError unless `value` is an instance of `types`."""
    if not isinstance(value, types):
        raise TypeError(f"{argument}: expected {expected}, got {type_name(value)}")


def type_name(value: object) -> str:
    """What a value's type is called; with its module where that of Python has the same name, as numpy's bool."""
    kind = type(value)
    is_other = hasattr(builtins, kind.__name__) and kind.__module__ != "builtins"
    return f"{kind.__module__}.{kind.__name__}" if is_other else kind.__name__
