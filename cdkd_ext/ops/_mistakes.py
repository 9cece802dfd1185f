"""Mistakes in an op's arguments, as exceptions of Python that name the argument."""

from __future__ import annotations

import functools
import inspect
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from cdkd_ext.errors import InputError, type_name

_P = ParamSpec("_P")
_R = TypeVar("_R")

_MESSAGE = re.compile(r"\w+(\[\d+\])?: expected .*, got ")
_WORDS = {
    Tensor: "a torch.Tensor",
    float: "a number",
    int: "an integer",
    str: "a str",
    bool: "a bool",
    type(None): "None",
}


def named(op: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a public op raise InputError or TypeError where its kernel or torch's dispatcher refuses an argument.

    A kernel raises RuntimeError in the form `argument: expected X, got Y`; of arguments that are no tensors torch
    speaks in its own words. Nothing is looked at before something was refused.
    """

    @functools.wraps(op)
    def call(*args: _P.args, **options: _P.kwargs) -> _R:
        try:
            return op(*args, **options)
        except (AttributeError, RuntimeError, TypeError, InputError) as error:
            if torch.compiler.is_compiling():  # a tracer cannot look at signatures
                raise
            mistake = _named(_translated(error), _misfit(op, args, options))
            if mistake is None or mistake is error:
                raise
            raise mistake from None

    # the compiler counts how often it has compiled a piece of code: it must not be the same for all ops
    wrapper: Any = call
    wrapper.__code__ = wrapper.__code__.replace(co_name=op.__name__)
    return call


def _named(mistake: Exception | None, misfit: Exception | None) -> Exception | None:
    """Of what a check says and of a type that is not the signature's: the type, unless the check names another argument."""
    if mistake is None or misfit is None:
        return mistake or misfit
    argument, other = (str(one).partition(":")[0].partition("[")[0] for one in (mistake, misfit))
    return misfit if argument == other else mistake


def _translated(error: Exception) -> Exception | None:
    """A mistake that a check has named; None if it is of other words."""
    message = str(error).split("\n", 1)[0]
    if not _MESSAGE.match(message):
        return None
    if isinstance(error, (TypeError, InputError)):
        return error
    return TypeError(message) if ": expected dtype " in message else InputError(message)


def _misfit(op: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Exception | None:
    """TypeError naming the first argument whose type is not that of the op's signature; None if all fit."""
    try:
        given = inspect.signature(op).bind(*args, **options).arguments
    except TypeError:  # an argument too few or too many: Python's own message is good
        return None
    hints = typing.get_type_hints(op)
    for name, value in given.items():
        for argument, part, expected in _parts(name, value, hints[name]):
            return TypeError(f"{argument}: expected {expected}, got {_kind(part)}")
    return None


def _parts(name: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and expected words of what does not fit in a value."""
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    nested = next((choice for choice in choices if typing.get_origin(choice)), None)
    if nested is not None and isinstance(value, (list, tuple)):
        yield from _elements(name, value, nested)
    elif not any(_fits(value, choice) for choice in choices):
        yield name, value, " or ".join(_words(choice) for choice in choices)


def _elements(name: str, values: Sequence[Any], hint: Any) -> Iterator[tuple[str, Any, str]]:
    kinds = typing.get_args(hint)
    for i, value in enumerate(values):  # how many there have to be says the kernel
        yield from _parts(f"{name}[{i}]", value, kinds[min(i, len(kinds) - 1)])


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) or not isinstance(value, numbers.Real if hint is float else hint):
        return False
    return not isinstance(value, Tensor) or _is_dense(value)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested


def _kind(value: Any) -> str:
    if isinstance(value, Tensor) and not _is_dense(value):
        return "one of another layout"
    return type_name(value)


def _words(hint: Any) -> str:
    return "a list or tuple of torch.Tensor" if typing.get_origin(hint) else _WORDS[hint]
