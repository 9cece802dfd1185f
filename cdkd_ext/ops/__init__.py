"""The ops of cross-domain knowledge distillation; they need torch and nothing else."""

from cdkd_ext.ops.cca_kl import cca_kl
from cdkd_ext.ops.projector_cosine import projector_cosine
from cdkd_ext.ops.sau_select import sau_select
from cdkd_ext.ops.simcc_decode import simcc_decode
from cdkd_ext.ops.simcc_kl import simcc_kl

__all__ = ["cca_kl", "projector_cosine", "sau_select", "simcc_decode", "simcc_kl"]
