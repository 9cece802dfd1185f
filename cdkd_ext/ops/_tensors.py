"""Checks of tensors that the ops share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from cdkd_ext._checks import check, check_type, fail

_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_R = TypeVar("_R")


def checked(check_arguments: Callable[..., None], run: Callable[..., _R], *args: Any, **options: Any) -> _R:
    """Run an op, checking its arguments in Python only where its kernel does not, or to explain a refusal.

    Kernels check everything themselves, so a call that succeeds need not be checked twice: on small inputs that
    would cost as much as the op. Under compilers, and for tensors without data, there is no kernel.
    """
    if not _reach_a_kernel(args, options):
        check_arguments(*args, **options)
    try:
        return run(*args, **options)
    except (AttributeError, RuntimeError, TypeError):
        check_arguments(*args, **options)
        raise


def _reach_a_kernel(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    if torch.compiler.is_compiling():
        return False
    for value in args:
        if not (_is_real(value) or isinstance(value, (int, float))):
            return False
    return all(value is None or isinstance(value, (int, float, str)) for value in options.values())


def _is_real(value: Any) -> bool:
    return type(value) in (Tensor, torch.nn.Parameter) and (value.is_cpu or value.is_cuda)


def check_floating(argument: str, value: Any) -> None:
    """Raise TypeError unless `value` is a tensor of a type that the kernels read."""
    check_type(argument, value, Tensor, "a torch.Tensor")
    if value.dtype not in _TYPES:
        raise TypeError(f"{argument}: expected float32, float64, bfloat16 or float16, got {value.dtype}")


def check_rows(argument: str, value: Any) -> None:
    """Check for a floating tensor whose last axis has at least one bin."""
    check_floating(argument, value)
    if value.dim() == 0 or value.shape[-1] == 0:
        fail(argument, tuple(value.shape), "shape (..., bins) with at least one bin")


def check_same_device(argument: str, value: Tensor, like: Tensor) -> None:
    """Check that `value` lies on the device of `like`."""
    if value.device != like.device:
        fail(argument, value.device, f"a tensor on {like.device}")


def check_positive(argument: str, value: Any, like: Tensor) -> None:
    """Check for a positive finite number, or a tensor of one element on the device of `like` that holds one.

    What a tensor holds is looked at only on the CPU and outside of compilers: elsewhere reading it would cost
    a synchronisation or a graph break.
    """
    if not isinstance(value, Tensor):
        check_type(argument, value, (int, float), "a number or a torch.Tensor")
        check(0 < value < math.inf, argument, value, "a positive finite number")
        return
    check_floating(argument, value)
    check(value.numel() == 1, argument, value.numel(), "one element")
    check_same_device(argument, value, like)
    if value.is_cpu and not torch.compiler.is_compiling():
        number = value.item()
        check(0 < number < math.inf, argument, number, "a positive finite number")


def as_scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """Turn a number into a float64 tensor on the device of `like`; a tensor stays what it is."""
    if isinstance(value, Tensor):
        return value
    if torch.compiler.is_compiling() or not _is_real(like):
        return torch.full((), value, dtype=torch.float64, device=like.device)
    return _constant(value, like.device)


@functools.lru_cache(maxsize=64)
def _constant(value: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((), value, dtype=torch.float64, device=device)


def common_type(*tensors: Tensor) -> torch.dtype:
    """Type that holds the values of all tensors."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
