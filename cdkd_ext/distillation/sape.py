"""SAPE: feature alignment across resolutions by an ensemble of projectors (CDKD, Eq. 1-5)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext import ops
from cdkd_ext.distillation.alignment import FeatureAlignment
from cdkd_ext.distillation.outputs import DescribedNetwork
from cdkd_ext.distillation.sau import SAU
from cdkd_ext.errors import check, check_option

_EPS = 1e-8
_logger = logging.getLogger(__name__)


class SAPE(FeatureAlignment):
    """Scale-adaptive projector ensemble: 1 - cosine of the projected student and the teacher's feature.

    K fully connected projectors take the student's h·w positions to the teacher's H·W; the SAU mixes their
    results per channel. By default there is no ReLU and the teacher is centred; as printed in the paper it is
    `activation="relu", center_teacher=False`, which caps the cosine that a signed teacher feature allows.

    Args:
        student_channels: C, the same for student and teacher.
        student_size: (h, w) of the student's feature map.
        teacher_size: (H, W) of the teacher's feature map.
        num_projectors: K.
        kernels: kernel sizes of the SAU's branches, odd; sizes may repeat.
        use_sau: without it the projectors are averaged.
        activation: "relu" or "none", after each projector.
        center_teacher: remove the spatial mean of each teacher channel.
        mode: "spatial" shares a projector between channels, "flatten" (C·h·w -> C·H·W) does not.
        max_weights: refuse a "flatten" ensemble of more weights than this.

    Raises:
        InputError: a size or count is not positive, an option is unknown, or "flatten" has too many weights.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import SAPE
        >>> sape = SAPE(17, (8, 8), (16, 16))
        >>> sape(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 16, 16)).shape
        torch.Size([])
    """

    def __init__(
        self,
        student_channels: int,
        student_size: tuple[int, int],
        teacher_size: tuple[int, int],
        *,
        num_projectors: int = 3,
        kernels: Sequence[int] = (3, 5, 7, 7),
        use_sau: bool = True,
        activation: str = "none",
        center_teacher: bool = True,
        mode: str = "spatial",
        max_weights: int = 100_000_000,
    ) -> None:
        check_option("mode", mode, ("spatial", "flatten"))
        check_option("activation", activation, ("relu", "none"))
        check(student_channels > 0, "student_channels", student_channels, "a positive integer")
        check(num_projectors > 0, "num_projectors", num_projectors, "a positive integer")
        super().__init__(student_channels, student_size, teacher_size)
        self.num_projectors = num_projectors
        self.activation = activation
        self.center_teacher = center_teacher
        self.mode = mode

        source, target = student_size[0] * student_size[1], teacher_size[0] * teacher_size[1]
        if mode == "flatten":
            source, target = student_channels * source, student_channels * target
            _announce(num_projectors * source * target, max_weights)
        self.projector_weight = nn.Parameter(torch.empty(num_projectors, target, source))
        self.projector_bias = nn.Parameter(torch.zeros(num_projectors, target))
        for weight in self.projector_weight:
            nn.init.xavier_uniform_(weight)
        self.sau = SAU(student_channels, num_projectors, kernels) if use_sau else None

    @classmethod
    def between(cls, student: DescribedNetwork, teacher: DescribedNetwork, **options: Any) -> SAPE:
        """The ensemble from a student's feature map to a teacher's.

        Args:
            student: with as many channels of the last feature map as the teacher.
            teacher: the network that teaches.
            options: the keyword arguments of `SAPE`.

        Raises:
            InputError: the channels differ.
        """
        channels = student.spec.feature_channels
        check(
            channels == teacher.spec.feature_channels,
            "teacher",
            f"{teacher.spec.feature_channels} channels of the last feature map",
            f"the student's {channels}",
        )
        return cls(channels, student.feature_size, teacher.feature_size, **options)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Mean over the batch of 1 - cosine, a scalar in [0, 2].

        Args:
            student_feature: (B, C, h, w); gradients reach it and the projectors.
            teacher_feature: (B, C, H, W); gets no gradient.

        Raises:
            InputError: a shape does not fit.
        """
        student, teacher = self.checked(student_feature, teacher_feature, self.projector_weight.dtype)
        teacher = teacher.flatten(2)  # (B, C, T)
        if self.center_teacher:
            teacher = teacher - teacher.mean(-1, keepdim=True)
        cosine = self._cosine(student.flatten(2), self._selection(student), teacher)  # (B,)
        return (1 - cosine).mean()

    def _selection(self, student: Tensor) -> Tensor:
        """Weights of the projectors, (B, K, C)."""
        if self.sau is not None:
            return self.sau(student)
        shape = (student.shape[0], self.num_projectors, self.channels)
        return self.projector_weight.new_full(shape, 1 / self.num_projectors)

    def _cosine(self, student: Tensor, selection: Tensor, teacher: Tensor) -> Tensor:
        if self.mode == "spatial":
            return ops.projector_cosine(
                student,
                self.projector_weight,
                self.projector_bias,
                selection,
                teacher,
                activation=self.activation,
                eps=_EPS,
            )
        mixed = torch.zeros_like(teacher)  # (B, C, T)
        flat = student.flatten(1)
        for k in range(self.num_projectors):
            projected = functional.linear(flat, self.projector_weight[k], self.projector_bias[k])
            if self.activation == "relu":
                projected = projected.relu()
            mixed = mixed + selection[:, k, :, None] * projected.view_as(mixed)
        return functional.cosine_similarity(mixed.flatten(1), teacher.flatten(1), eps=_EPS)


def _announce(count: int, max_weights: int) -> None:
    size = f"{count:,} projector weights, {count * 4 / 2**30:.1f} GiB in float32, four times that to train"
    check(count <= max_weights, "max_weights", max_weights, f"at least {count} for mode 'flatten' ({size})")
    _logger.warning("SAPE in mode 'flatten' has %s", size)
