"""Alignments that the paper compares SAPE and CCA with (CDKD, Table V).

The paper cites FitNets (Romero et al., ICLR 2015) for the strided convolution, ScaleKD (Zhu et al., CVPR 2023) for the fully
connected layer between features, and bridge distillation (Ge et al., TIP 2020) for that between classes. It prints neither
kernel nor activation, loss or weight, and its release has no code for any of them: what is here are readings, and
each class says which part of it is a guess.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.distillation.alignment import FeatureAlignment
from cdkd_ext.distillation.cca import CCA, check_classes
from cdkd_ext.distillation.outputs import TeacherOutput
from cdkd_ext.errors import check
from cdkd_ext.models import SimCCOutput
from cdkd_ext.tensor_checks import check_tensor


class StridedConvolution(FeatureAlignment):
    """The teacher's feature is brought down to the student's size by a learnt convolution; mean squared difference.

    Guesses: one convolution C -> C without activation, whose kernel is its stride, H / h by W / w, so that it reads every
    position once; that it stands on the teacher's side; the squared difference, which is FitNets'.

    Args:
        channels: C, the same for student and teacher.
        student_size: (h, w) of the student's feature map.
        teacher_size: (H, W) of the teacher's feature map, multiples of h and w.

    Raises:
        InputError: a size or count is not positive, or the sizes are no multiples.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import StridedConvolution
        >>> term = StridedConvolution(17, (8, 8), (64, 64))
        >>> term(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 64, 64)).shape
        torch.Size([])
    """

    def __init__(self, channels: int, student_size: tuple[int, int], teacher_size: tuple[int, int]) -> None:
        super().__init__(channels, student_size, teacher_size)
        (height, width), (rows, columns) = self.teacher_size, self.student_size
        whole = height % rows == 0 and width % columns == 0
        expected = f"multiples of student_size {self.student_size} for a strided convolution"
        check(whole, "teacher_size", self.teacher_size, expected)
        stride = (height // rows, width // columns)
        self.convolution = nn.Conv2d(channels, channels, stride, stride)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """See `FeatureAlignment.forward`."""
        student, teacher = self.checked(student_feature, teacher_feature, self.convolution.weight.dtype)
        return functional.mse_loss(student, self.convolution(teacher))


class FullyConnectedFeatures(FeatureAlignment):
    """The student's whole feature is brought up to the teacher's by one linear layer; mean squared difference.

    Guesses: one layer over channels and positions together, C·h·w -> C·H·W, without activation; the squared difference.

    Args:
        channels: C, the same for student and teacher.
        student_size: (h, w) of the student's feature map.
        teacher_size: (H, W) of the teacher's feature map.
        max_weights: refuse a layer of more weights than this. From 16 channels of 16x16 to 64x64 it has 268 million.

    Raises:
        InputError: a size or count is not positive, or there are too many weights.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import FullyConnectedFeatures
        >>> term = FullyConnectedFeatures(17, (8, 8), (16, 16))
        >>> term(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 16, 16)).shape
        torch.Size([])
    """

    def __init__(
        self,
        channels: int,
        student_size: tuple[int, int],
        teacher_size: tuple[int, int],
        *,
        max_weights: int = 400_000_000,
    ) -> None:
        super().__init__(channels, student_size, teacher_size)
        source, target = channels * math.prod(student_size), channels * math.prod(teacher_size)
        expected = f"at least {source * target} for a linear layer from {source} to {target}"
        check(source * target <= max_weights, "max_weights", max_weights, expected)
        self.linear = nn.Linear(source, target)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """See `FeatureAlignment.forward`."""
        student, teacher = self.checked(student_feature, teacher_feature, self.linear.weight.dtype)
        return functional.mse_loss(self.linear(student.flatten(1)), teacher.flatten(1))


class FullyConnectedClasses(CCA):
    """Instead of the teacher's classes being merged, the student's are brought up to them by a linear layer per axis.

    The loss is CCA's between equal numbers of classes: τ²·KL. Guesses: one layer per axis, shared by the joints, on the
    student's logits; no activation.

    Args:
        student_bins: of the student's axes (x, y).
        teacher_bins: of the teacher's.

    Raises:
        InputError: a number is not positive.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import FullyConnectedClasses, TeacherOutput
        >>> from cdkd_ext.models import SimCCOutput
        >>> student = SimCCOutput(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 64), torch.randn(2, 17, 64))
        >>> teacher = TeacherOutput(None, torch.randn(2, 17, 768), torch.randn(2, 17, 768))
        >>> FullyConnectedClasses((64, 64), (768, 768))(student, teacher, tau=1.0).shape
        torch.Size([])
    """

    def __init__(self, student_bins: tuple[int, int], teacher_bins: tuple[int, int]) -> None:
        super().__init__()
        for name, bins in (("student_bins", student_bins), ("teacher_bins", teacher_bins)):
            check(len(bins) == 2 and min(bins) > 0, name, tuple(bins), "two positive integers (x, y)")
        self.linear_x, self.linear_y = (
            nn.Linear(own, other) for own, other in zip(student_bins, teacher_bins, strict=True)
        )

    def forward(
        self,
        student: SimCCOutput,
        teacher: TeacherOutput,
        tau: float | Tensor,
        weights: Tensor | None = None,
        *,
        probabilities: bool = False,
    ) -> Tensor:
        """See `CCA.forward`."""
        check_classes(student, teacher)
        for axis, linear in (("logits_x", self.linear_x), ("logits_y", self.linear_y)):
            check_tensor(f"student.{axis}", getattr(student, axis), ("B", "J", linear.in_features))
            batch, joints, _ = getattr(student, axis).shape
            check_tensor(f"teacher.{axis}", getattr(teacher, axis), (batch, joints, linear.out_features))
        dtype = self.linear_x.weight.dtype
        widened = student._replace(
            logits_x=self.linear_x(student.logits_x.to(dtype)),
            logits_y=self.linear_y(student.logits_y.to(dtype)),
        )
        return super().forward(widened, teacher, tau, weights, probabilities=probabilities)
