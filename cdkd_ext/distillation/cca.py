"""CCA: logit alignment across class counts (CDKD, Eq. 6-7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cdkd_ext import ops
from cdkd_ext.distillation.outputs import TeacherOutput
from cdkd_ext.errors import check, check_option
from cdkd_ext.models import SimCCOutput
from cdkd_ext.tensor_checks import check_tensor, check_weights


class CCA(nn.Module):
    """Cross-class alignment: τ²·KL of the student's bins from the teacher's, merged to the student's count.

    The count ratio is taken per axis and need not be an integer.

    Args:
        phase: "paper" merges as printed (Eq. 6); "centered" centres the merged teacher mass on the coordinate
            that the student's bin stands for.
        offset: how far the merged intervals are moved down on the axes (x, y), in teacher bins, in place of `phase`;
            the teacher may then have fewer bins than the student. `TeacherSpec.offset` tells it.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import CCA, TeacherOutput
        >>> from cdkd_ext.models import SimCCOutput
        >>> student = SimCCOutput(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 64), torch.randn(2, 17, 64))
        >>> teacher = TeacherOutput(torch.randn(2, 17, 64, 64), torch.randn(2, 17, 768), torch.randn(2, 17, 768))
        >>> CCA()(student, teacher, tau=1.0).shape
        torch.Size([])
    """

    def __init__(self, phase: str = "paper", *, offset: tuple[float, float] | None = None) -> None:
        super().__init__()
        check_option("phase", phase, ("paper", "centered"))
        if offset is not None:
            fine = len(offset) == 2 and all(map(math.isfinite, offset))
            check(fine, "offset", offset, "two finite numbers of teacher bins (x, y)")
        self.phase = phase
        self.offset = offset

    def forward(
        self, student: SimCCOutput, teacher: TeacherOutput, tau: float | Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean over samples and joints, summed over the two axes: a scalar.

        Args:
            student: logits (B, J, N_s) per axis.
            teacher: logits (B, J, N_t) per axis, N_t >= N_s unless there is an `offset`; gets no gradient.
            tau: temperature; a 0-dim tensor gets its gradient through both softmaxes.
            weights: (B, J) factors on the rows, or None for ones.

        Raises:
            InputError: a shape does not fit, the teacher has fewer bins, or one of the two has heatmaps.
        """
        total: Tensor | None = None
        for name, output in (("student", student), ("teacher", teacher)):
            simcc = getattr(output, "logits_x", None) is not None
            check(simcc, name, "heatmaps", "SimCC logits, whose classes CCA aligns")
        for number, axis in enumerate(("logits_x", "logits_y")):
            student_logits, teacher_logits = getattr(student, axis), getattr(teacher, axis)
            check_tensor(f"student.{axis}", student_logits, ("B", "J", "N"))
            batch, joints, classes = student_logits.shape
            check_tensor(f"teacher.{axis}", teacher_logits, (batch, joints, "N"))
            bins = teacher_logits.shape[-1]
            if self.offset is None:
                expected = f"at least the student's {classes} bins"
                check(bins >= classes, f"teacher.{axis}", f"{bins} bins", expected)
                rows = ops.cca_kl(student_logits, teacher_logits.detach(), tau, phase=self.phase)
            else:
                rows = _moved(student_logits, teacher_logits.detach(), tau, self.offset[number])
            if weights is not None:
                check_weights("weights", weights, (batch, joints))
                rows = rows * weights
            total = rows.mean() if total is None else total + rows.mean()
        assert total is not None
        return total


def _moved(student: Tensor, teacher: Tensor, tau: float | Tensor, offset: float) -> Tensor:
    """`ops.cca_kl` with an offset."""
    bins, classes = teacher.shape[-1], student.shape[-1]
    edges = torch.arange(classes + 1, dtype=torch.float64) * (bins / classes) - offset
    edges[0], edges[-1] = -torch.inf, torch.inf
    left = torch.arange(bins, dtype=torch.float64)[:, None]
    share = (torch.minimum(left + 1, edges[1:]) - torch.maximum(left, edges[:-1])).clamp(min=0)
    merged = torch.softmax(teacher.float() / tau, -1) @ share.to(teacher.device, torch.float32)
    log_student = torch.log_softmax(student.float() / tau, -1)
    return tau**2 * (torch.special.xlogy(merged, merged) - merged * log_student).sum(-1)
