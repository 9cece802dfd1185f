"""What every feature term has in common: two maps of as many channels and different sizes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cdkd_ext.errors import check
from cdkd_ext.tensor_checks import check_tensor


class FeatureAlignment(nn.Module, ABC):
    """A term that compares two feature maps of different sizes.

    Attributes:
        channels: C, the same for student and teacher.
        student_size: (h, w) of the student's feature map.
        teacher_size: (H, W) of the teacher's feature map.

    Args:
        channels: C.
        student_size: (h, w).
        teacher_size: (H, W).

    Raises:
        InputError: a size or count is not positive.
    """

    def __init__(self, channels: int, student_size: tuple[int, int], teacher_size: tuple[int, int]) -> None:
        super().__init__()
        check(channels > 0, "channels", channels, "a positive integer")
        for name, size in (("student_size", student_size), ("teacher_size", teacher_size)):
            fits = len(size) == 2 and min(size) > 0
            check(fits, name, tuple(size), "two positive integers (height, width)")
        self.channels = channels
        self.student_size = (student_size[0], student_size[1])
        self.teacher_size = (teacher_size[0], teacher_size[1])

    @abstractmethod
    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """A scalar.

        Args:
            student_feature: (B, C, h, w).
            teacher_feature: (B, C, H, W); gets no gradient.

        Raises:
            InputError: a shape does not fit.
        """

    def checked(
        self, student_feature: Tensor, teacher_feature: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Both features in the layers' type, which mixed precision does not hand over, the teacher's detached.

        Raises:
            InputError: a shape does not fit.
        """
        check_tensor("student_feature", student_feature, ("B", self.channels, *self.student_size))
        batch = student_feature.shape[0]
        check_tensor("teacher_feature", teacher_feature, (batch, self.channels, *self.teacher_size))
        return student_feature.to(dtype), teacher_feature.detach().to(dtype)
