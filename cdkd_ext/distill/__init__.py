"""Knowledge distillation between networks of different input resolution and bin count."""

from cdkd_ext.distill.cca import CCA
from cdkd_ext.distill.etht import ETHT, AdversarialScalar, cosine_ramp, gradient_reversal
from cdkd_ext.distill.heatmap import HeatmapLoss
from cdkd_ext.distill.loss import DistillationLoss
from cdkd_ext.distill.outputs import DescribedNetwork, TeacherOutput
from cdkd_ext.distill.sape import SAPE
from cdkd_ext.distill.sau import SAU
from cdkd_ext.distill.simcc import SimCCLoss

__all__ = [
    "CCA",
    "ETHT",
    "SAPE",
    "SAU",
    "AdversarialScalar",
    "DescribedNetwork",
    "DistillationLoss",
    "HeatmapLoss",
    "SimCCLoss",
    "TeacherOutput",
    "cosine_ramp",
    "gradient_reversal",
]
