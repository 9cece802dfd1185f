"""The ops of cross-domain knowledge distillation; they need torch and nothing else.

All but `simcc_decode` have first derivatives in reverse and forward mode, and all can be mapped with `torch.vmap`,
compiled and exported. What is not there, such as second derivatives, is refused in one sentence;
`cdkd_ext.ops.reference` has every op in plain PyTorch, which differentiates it as often as one likes.
"""

from cdkd_ext.ops.cca_kl import cca_kl
from cdkd_ext.ops.projector_cosine import projector_cosine
from cdkd_ext.ops.sau_select import sau_select
from cdkd_ext.ops.simcc_decode import simcc_decode
from cdkd_ext.ops.simcc_kl import simcc_kl

__all__ = ["cca_kl", "projector_cosine", "sau_select", "simcc_decode", "simcc_kl"]
