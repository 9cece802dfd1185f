"""The ops of cross-domain knowledge distillation; they need torch and nothing else."""

from cdkd_ext.ops.reference import cca_kl, projector_cosine, sau_select, simcc_decode, simcc_kl

__all__ = ["cca_kl", "projector_cosine", "sau_select", "simcc_decode", "simcc_kl"]
