"""The exception for a mistake in what a caller gave, and checks with one message form: argument, expected, got."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn


class InputError(ValueError):
    """A mistake in what the caller gave: the message names the argument, what was expected and what was given.

    The command line prints it as one line.
    """


def fail(argument: str, got: object, expected: str) -> NoReturn:
    """Raise InputError naming the argument, what was expected and what was given."""
    raise InputError(f"{argument}: expected {expected}, got {got}")


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
        raise TypeError(f"{argument}: expected {expected}, got {type(value).__name__}")
