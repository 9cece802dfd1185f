"""CCA: logit alignment across class counts (CDKD, Eq. 6-7)."""

from __future__ import annotations

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

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import CCA, TeacherOutput
        >>> from cdkd_ext.models import SimCCOutput
        >>> student = SimCCOutput(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 64), torch.randn(2, 17, 64))
        >>> teacher = TeacherOutput(torch.randn(2, 17, 64, 64), torch.randn(2, 17, 768), torch.randn(2, 17, 768))
        >>> CCA()(student, teacher, tau=1.0).shape
        torch.Size([])
    """

    def __init__(self, phase: str = "paper") -> None:
        super().__init__()
        check_option("phase", phase, ("paper", "centered"))
        self.phase = phase

    def forward(
        self, student: SimCCOutput, teacher: TeacherOutput, tau: float | Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean over samples and joints, summed over the two axes: a scalar.

        Args:
            student: logits (B, J, N_s) per axis.
            teacher: logits (B, J, N_t) per axis, N_t >= N_s; gets no gradient.
            tau: temperature; a 0-dim tensor gets its gradient through both softmaxes.
            weights: (B, J) factors on the rows, or None for ones.

        Raises:
            InputError: a shape does not fit, the teacher has fewer bins, or one of the two has heatmaps.
        """
        total: Tensor | None = None
        for name, output in (("student", student), ("teacher", teacher)):
            simcc = getattr(output, "logits_x", None) is not None
            check(simcc, name, "heatmaps", "SimCC logits, whose classes CCA aligns")
        for axis in ("logits_x", "logits_y"):
            student_logits, teacher_logits = getattr(student, axis), getattr(teacher, axis)
            check_tensor(f"student.{axis}", student_logits, ("B", "J", "N"))
            batch, joints, classes = student_logits.shape
            check_tensor(f"teacher.{axis}", teacher_logits, (batch, joints, "N"))
            bins = teacher_logits.shape[-1]
            check(
                bins >= classes, f"teacher.{axis}", f"{bins} bins", f"at least the student's {classes} bins"
            )
            rows = ops.cca_kl(student_logits, teacher_logits.detach(), tau, phase=self.phase)
            if weights is not None:
                check_weights("weights", weights, (batch, joints))
                rows = rows * weights
            total = rows.mean() if total is None else total + rows.mean()
        assert total is not None
        return total
