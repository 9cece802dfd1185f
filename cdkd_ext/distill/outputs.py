"""What the distillation terms need of a network's output."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cdkd_ext._checks import check, check_tensor


class FeatureOutputs(Protocol):
    """A feature map (B, C, h, w); `models.HeatmapOutput` is one."""

    @property
    def feature(self) -> Tensor: ...  # noqa: D102


class PoseOutputs(FeatureOutputs, Protocol):
    """A feature map (B, C, h, w) and SimCC logits (B, J, N_x), (B, J, N_y); `models.PoseOutput` is one."""

    @property
    def logits_x(self) -> Tensor: ...  # noqa: D102

    @property
    def logits_y(self) -> Tensor: ...  # noqa: D102


def check_weights(argument: str, weights: Tensor, shape: tuple[int, ...]) -> None:
    """Check for finite weights that are not negative, where looking at them costs no synchronisation."""
    check_tensor(argument, weights, shape)
    if weights.device.type == "cpu" and not torch.compiler.is_compiling():
        fine = bool(torch.isfinite(weights).all()) and bool((weights >= 0).all())
        check(fine, argument, "negative or non-finite values", "weights of at least 0")
