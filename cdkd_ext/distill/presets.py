"""Complete losses: the defaults, and what the paper prints."""

from __future__ import annotations

from cdkd_ext.distill.cca import CCA
from cdkd_ext.distill.etht import ETHT
from cdkd_ext.distill.loss import DistillationLoss
from cdkd_ext.distill.sape import SAPE
from cdkd_ext.distill.simcc import SimCCLoss


def recommended_loss(
    labels: SimCCLoss, num_joints: int, student_size: tuple[int, int], teacher_size: tuple[int, int]
) -> DistillationLoss:
    """CCA at τ = 1 with β = 4 and a centred SAPE without ReLU with α = 2.

    Args:
        labels: SimCC's own loss.
        num_joints: J, the channels of both feature maps.
        student_size: (h, w) of the student's feature map.
        teacher_size: (H, W) of the teacher's feature map.
    """
    return DistillationLoss(labels, sape=SAPE(num_joints, student_size, teacher_size), cca=CCA())


def paper_loss(
    labels: SimCCLoss, num_joints: int, student_size: tuple[int, int], teacher_size: tuple[int, int]
) -> DistillationLoss:
    """SAPE, CCA and ETHT as printed; the paper prints no α and β, so both are 1.

    Args: see `recommended_loss`.
    """
    sape = SAPE(num_joints, student_size, teacher_size, activation="relu", center_teacher=False)
    return DistillationLoss(labels, sape=sape, cca=CCA("paper"), tau=ETHT(), alpha=1.0, beta=1.0)
