"""What the distillation terms take from networks: a description to be built for, and a teacher's output."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cdkd_ext.models import ModelSpec


class DescribedNetwork(Protocol):
    """A network whose outputs' sizes are known; `models.PoseNetwork` and `teachers.FrozenTeacher` are such."""

    @property
    def spec(self) -> ModelSpec:
        """The description: joints, head, sizes of crops and bins."""
        ...

    @property
    def feature_size(self) -> tuple[int, int]:
        """(h, w) of the last feature map."""
        ...


class TeacherOutput(NamedTuple):
    """What a teacher says about a batch of crops, from the network or the stored arrays to the losses.

    Attributes:
        feature: last feature map (B, C, H, W); of a heatmap teacher the heatmaps.
        logits_x: (B, J, N_x), one class per horizontal bin; None of a heatmap teacher.
        logits_y: (B, J, N_y), one class per vertical bin; None of a heatmap teacher.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import TeacherOutput
        >>> TeacherOutput(torch.zeros(8, 17, 16, 16)).logits_x is None
        True
    """

    feature: Tensor
    logits_x: Tensor | None = None
    logits_y: Tensor | None = None

    def to(self, device: torch.device | str) -> TeacherOutput:
        """The same on another device; copies nothing that is there already."""
        moved = (None if value is None else value.to(device, non_blocking=True) for value in self)
        return TeacherOutput(*moved)  # type: ignore[arg-type]

    def widened(self) -> TeacherOutput:
        """The same with 16-bit floats, as outputs are stored, in float32; other types stay."""
        halves = (torch.float16, torch.bfloat16)
        return TeacherOutput(
            *(value.float() if value is not None and value.dtype in halves else value for value in self)  # type: ignore[arg-type]
        )
