"""SAU: which projector suits which channel, seen at several receptive fields (CDKD, Eq. 2-4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cdkd_ext import ops
from cdkd_ext.errors import check


class SAU(nn.Module):
    """Weights of K projectors per sample and channel, a softmax over the projectors.

    Args:
        channels: C.
        num_projectors: K.
        kernels: odd kernel sizes, one per branch; sizes may repeat.

    Raises:
        InputError: a count or size is not positive, or a kernel is even.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import SAU
        >>> SAU(17, num_projectors=3)(torch.randn(2, 17, 8, 8)).shape
        torch.Size([2, 3, 17])
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, num_projectors: int, kernels: Sequence[int] = (3, 5, 7, 7)) -> None:
        super().__init__()
        check(channels > 0, "channels", channels, "a positive integer")
        check(num_projectors > 0, "num_projectors", num_projectors, "a positive integer")
        odd = len(kernels) > 0 and all(isinstance(size, int) and size > 0 and size % 2 for size in kernels)
        check(odd, "kernels", list(kernels), "one or more odd positive integers")
        branches, hidden = len(kernels), max(channels // 16, 32)
        self.conv_weights = nn.ParameterList(torch.empty(channels, channels, size, size) for size in kernels)
        self.norm_weight = nn.Parameter(torch.ones(branches, channels))
        self.norm_bias = nn.Parameter(torch.zeros(branches, channels))
        self.register_buffer("running_mean", torch.zeros(branches, channels))
        self.register_buffer("running_var", torch.ones(branches, channels))
        self.squeeze_weight = nn.Parameter(torch.empty(hidden, channels))
        self.squeeze_bias = nn.Parameter(torch.zeros(hidden))
        self.select_weight = nn.Parameter(torch.empty(num_projectors, channels, hidden))
        self.select_bias = nn.Parameter(torch.zeros(num_projectors, channels))
        for weight in (*self.conv_weights, self.squeeze_weight):
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        for weight in self.select_weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, feature: Tensor) -> Tensor:
        """Student feature (B, C, h, w) -> selection (B, K, C); training updates the running statistics."""
        return ops.sau_select(
            feature,
            list(self.conv_weights),
            self.norm_weight,
            self.norm_bias,
            self.running_mean,
            self.running_var,
            self.squeeze_weight,
            self.squeeze_bias,
            self.select_weight,
            self.select_bias,
            training=self.training,
        )
