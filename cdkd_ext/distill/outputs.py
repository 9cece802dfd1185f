"""What the distillation terms need of a network's output."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class FeatureOutputs(Protocol):
    """A feature map (B, C, h, w); `models.HeatmapOutput` is one."""

    @property
    def feature(self) -> Tensor: ...  # noqa: D102


class PoseOutputs(FeatureOutputs, Protocol):
    """A feature map (B, C, h, w) and SimCC logits (B, J, N_x), (B, J, N_y); `models.SimCCOutput` is one."""

    @property
    def logits_x(self) -> Tensor: ...  # noqa: D102

    @property
    def logits_y(self) -> Tensor: ...  # noqa: D102
