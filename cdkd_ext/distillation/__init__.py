"""Knowledge distillation between networks of different input resolution and bin count."""

from cdkd_ext.distillation.alignment import FeatureAlignment
from cdkd_ext.distillation.alternatives import (
    FullyConnectedClasses,
    FullyConnectedFeatures,
    StridedConvolution,
)
from cdkd_ext.distillation.cca import CCA
from cdkd_ext.distillation.etht import ETHT, AdversarialScalar, cosine_ramp, gradient_reversal
from cdkd_ext.distillation.heatmap_cca import HeatmapCCA
from cdkd_ext.distillation.loss import DistillationLoss
from cdkd_ext.distillation.mirroring import mirror_output
from cdkd_ext.distillation.outputs import DescribedNetwork, TeacherOutput, TeacherSpec
from cdkd_ext.distillation.sape import SAPE
from cdkd_ext.distillation.sau import SAU
from cdkd_ext.methods.heatmap import HeatmapLoss
from cdkd_ext.methods.simcc import SimCCLoss

__all__ = [
    "CCA",
    "ETHT",
    "SAPE",
    "SAU",
    "AdversarialScalar",
    "DescribedNetwork",
    "DistillationLoss",
    "FeatureAlignment",
    "FullyConnectedClasses",
    "FullyConnectedFeatures",
    "HeatmapCCA",
    "HeatmapLoss",
    "SimCCLoss",
    "StridedConvolution",
    "TeacherOutput",
    "TeacherSpec",
    "cosine_ramp",
    "gradient_reversal",
    "mirror_output",
]
