"""CCA: logit alignment across class counts (CDKD, Eq. 6-7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import ClassVar

from torch import Tensor, nn

from cdkd_ext import ops
from cdkd_ext.distillation.outputs import TeacherOutput
from cdkd_ext.errors import check, check_option
from cdkd_ext.models import SimCCOutput
from cdkd_ext.tensor_checks import check_tensor, check_weights


class CCA(nn.Module):
    """Cross-class alignment: τ²·KL of the student's bins from the teacher's, merged to the student's count.

    The count ratio is taken per axis and may be any, below one too.

    Args:
        phase: "paper" merges as printed (Eq. 6); "centered" centres the merged teacher mass on the coordinate
            that the student's bin stands for.
        offset: instead of `phase`, how far the classes' intervals are moved down in teacher bins, as
            `ops.cca_kl` has it: one number, or one per axis (x, y).

    Raises:
        InputError: an unknown phase, an offset that is not finite or given beside the phase "centered".

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import CCA, TeacherOutput
        >>> from cdkd_ext.models import SimCCOutput
        >>> student = SimCCOutput(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 64), torch.randn(2, 17, 64))
        >>> teacher = TeacherOutput(torch.randn(2, 17, 64, 64), torch.randn(2, 17, 768), torch.randn(2, 17, 768))
        >>> CCA()(student, teacher, tau=1.0).shape
        torch.Size([])
    """

    # whether the loss has the factor τ², which ETHT may keep out of its gradient
    carries_tau_squared: ClassVar[bool] = True

    def __init__(self, phase: str = "paper", *, offset: float | tuple[float, float] | None = None) -> None:
        super().__init__()
        check_option("phase", phase, ("paper", "centered"))
        if offset is not None:
            check(phase == "paper", "offset", offset, f"None with phase {phase!r}")
            offset = _per_axis(offset)
        self.phase = phase
        self.offset = offset

    def forward(
        self,
        student: SimCCOutput,
        teacher: TeacherOutput,
        tau: float | Tensor,
        weights: Tensor | None = None,
        *,
        probabilities: bool = False,
    ) -> Tensor:
        """Mean over samples and joints, summed over the two axes: a scalar.

        Args:
            student: logits (B, J, N_s) per axis.
            teacher: logits (B, J, N_t) per axis; gets no gradient.
            tau: temperature; a 0-dim tensor gets its gradient through both softmaxes.
            weights: (B, J) factors on the rows, or None for ones. A row of weight 0 is not read.
            probabilities: the teacher's logits are probabilities instead, which need not sum to one.

        Raises:
            InputError: a shape does not fit, or one of the two has heatmaps.
        """
        total: Tensor | None = None
        check_classes(student, teacher)
        for axis, offset in zip(("logits_x", "logits_y"), self.offset or (None, None), strict=True):
            student_logits, teacher_logits = getattr(student, axis), getattr(teacher, axis)
            check_tensor(f"student.{axis}", student_logits, ("B", "J", "N"))
            batch, joints, _ = student_logits.shape
            check_tensor(f"teacher.{axis}", teacher_logits, (batch, joints, "N"))
            if weights is not None:
                check_weights("weights", weights, (batch, joints))
            rows = ops.cca_kl(
                student_logits,
                teacher_logits.detach(),
                tau,
                phase=self.phase,
                offset=offset,
                weights=weights,
                probabilities=probabilities,
            )
            total = rows.mean() if total is None else total + rows.mean()
        assert total is not None
        return total


def check_classes(student: SimCCOutput, teacher: TeacherOutput) -> None:
    """Fail unless both outputs have classes.

    Raises:
        InputError: one of the two has heatmaps.
    """
    for name, output in (("student", student), ("teacher", teacher)):
        simcc = getattr(output, "logits_x", None) is not None
        check(simcc, name, "heatmaps", "SimCC logits, whose classes CCA aligns")


def _per_axis(offset: float | Sequence[float]) -> tuple[float, float]:
    axes = tuple(offset) if isinstance(offset, Sequence) else (offset, offset)
    fits = len(axes) == 2 and all(isinstance(number, Real) and math.isfinite(number) for number in axes)
    check(fits, "offset", offset, "a finite number of teacher bins, or two (x, y)")
    return float(axes[0]), float(axes[1])
