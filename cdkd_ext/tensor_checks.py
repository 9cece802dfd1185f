"""Checks of tensors that networks and losses take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_type, fail


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


def check_weights(argument: str, weights: Tensor, shape: tuple[int, ...]) -> None:
    """Check for finite weights that are not negative, where looking at them costs no synchronisation."""
    check_tensor(argument, weights, shape)
    if weights.device.type == "cpu" and not torch.compiler.is_compiling():
        fine = bool(torch.isfinite(weights).all()) and bool((weights >= 0).all())
        check(fine, argument, "negative or non-finite values", "weights of at least 0")
