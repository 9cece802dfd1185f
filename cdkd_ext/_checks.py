"""Input checks with one message form: the argument, what was expected, what came."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import torch


class InputError(ValueError):
    """A mistake in what the caller gave; the command line prints it as one line."""


def fail(argument: str, came: object, expected: str) -> NoReturn:
    """Raise InputError naming the argument, what was expected and what came."""
    raise InputError(f"{argument}: expected {expected}, got {came}")


def check(condition: object, argument: str, came: object, expected: str) -> None:
    """Fail unless `condition` is true."""
    if not condition:
        fail(argument, came, expected)


def check_option(argument: str, value: object, options: Iterable[object]) -> None:
    """Fail unless `value` is one of `options`."""
    options = list(options)
    if value not in options:
        fail(argument, repr(value), "one of " + ", ".join(map(repr, options)))


def check_type(argument: str, value: object, types: type | tuple[type, ...], expected: str) -> None:
    """Raise TypeError unless `value` is an instance of `types`."""
    if not isinstance(value, types):
        raise TypeError(f"{argument}: expected {expected}, got {type(value).__name__}")


def check_tensor(argument: str, value: Any, shape: tuple[int | str, ...]) -> None:
    """Check for a floating-point tensor of a given rank; integers in `shape` are exact, names are free."""
    check_type(argument, value, torch.Tensor, "a torch.Tensor")
    if not value.is_floating_point():
        raise TypeError(f"{argument}: expected a floating-point tensor, got {value.dtype}")
    matches = value.dim() == len(shape) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(value.shape, shape, strict=True)
    )
    if not matches:  # the message is built only here: torch.compile cannot print symbolic sizes
        fail(argument, tuple(value.shape), f"shape ({', '.join(map(str, shape))})")
