"""Checks of tensors that the ops share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cdkd_ext._checks import check, check_type, fail

_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


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


def as_scalar(argument: str, value: Any, like: Tensor) -> Tensor:
    """Turn a positive number, or a tensor of one element, into a tensor on the device of `like`.

    What a tensor holds is looked at only on the CPU and outside of compilers: elsewhere reading it would cost
    a synchronisation or a graph break, and the kernel checks it anyway.
    """
    if not isinstance(value, Tensor):
        check_type(argument, value, (int, float), "a number or a torch.Tensor")
        check(0 < value < math.inf, argument, value, "a positive finite number")
        return torch.full((), value, dtype=torch.float64, device=like.device)
    check_floating(argument, value)
    check(value.numel() == 1, argument, value.numel(), "one element")
    check_same_device(argument, value, like)
    if value.is_cpu and not torch.compiler.is_compiling():
        number = value.item()
        check(0 < number < math.inf, argument, number, "a positive finite number")
    return value


def common_type(*tensors: Tensor) -> torch.dtype:
    """Type that holds the values of all tensors."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
