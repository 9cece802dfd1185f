"""The loss of heatmap networks, from labels (SimpleBaselines, HRNet; DARK without quantisation)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cdkd_ext.codecs.heatmap import heatmap_sigma, heatmap_targets
from cdkd_ext.distillation.outputs import DescribedNetwork
from cdkd_ext.errors import check
from cdkd_ext.models import HeatmapOutput
from cdkd_ext.tensor_checks import check_tensor, check_weights


class HeatmapLoss(nn.Module):
    """Half the mean squared difference of the maps from Gaussians around the keypoints, as published.

    The difference is multiplied by the joint's weight before it is squared, and the mean is over all samples, joints
    and cells, those without a label included.

    Args:
        input_size: (height, width) of the student's crop in pixels.
        sigma: standard deviation of the Gaussians in cells; None takes `heatmap_sigma` of the map.
        quantized: centre the Gaussians on cells, as HRNet does and DARK does not.
        scale: factor on the result.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import HeatmapLoss
        >>> from cdkd_ext.models import HeatmapOutput
        >>> student = HeatmapOutput(torch.randn(2, 17, 16, 16))
        >>> HeatmapLoss((64, 64))(student, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "heatmap"

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        sigma: float | None = None,
        quantized: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check(
            len(input_size) == 2 and min(input_size) > 0,
            "input_size",
            tuple(input_size),
            "two positive integers (height, width)",
        )
        check(
            sigma is None or 0 < sigma < float("inf"), "sigma", sigma, "a positive number of cells, or None"
        )
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.input_size = (input_size[0], input_size[1])
        self.sigma = sigma
        self.quantized = quantized
        self.scale = float(scale)

    @classmethod
    def of(cls, student: DescribedNetwork, *, sigma: float | None = None, scale: float = 1.0) -> HeatmapLoss:
        """The loss of a heatmap network: the targets of its crops' size, as its decoding was published.

        Args:
            student: a network with a heatmap head.
            sigma: see `HeatmapLoss`.
            scale: see `HeatmapLoss`.
        """
        spec = student.spec
        return cls(spec.input_size, sigma=sigma, quantized=spec.decoding == "quarter", scale=scale)

    def forward(self, student: HeatmapOutput, keypoints: Tensor, weights: Tensor) -> Tensor:
        """Mean loss, a scalar.

        Args:
            student: its feature (B, J, h, w) is the heatmaps.
            keypoints: (B, J, 2) x and y in pixels of the student's crop; anything where the weight is 0.
            weights: (B, J) factors, 0 for joints without a label.

        Raises:
            InputError: a shape does not fit, or a weight is negative.
        """
        maps = student.feature
        check_tensor("student.feature", maps, ("B", "J", "h", "w"))
        batch, joints, height, width = maps.shape
        check_tensor("keypoints", keypoints, (batch, joints, 2))
        check_weights("weights", weights, (batch, joints))
        # float32 at least: float16 cannot hold a pixel coordinate to a fraction of a cell
        dtype = torch.promote_types(keypoints.dtype, torch.float32)
        sigma = heatmap_sigma((height, width)) if self.sigma is None else self.sigma
        targets, used = heatmap_targets(
            keypoints.to(dtype), weights, self.input_size, (height, width), sigma, quantized=self.quantized
        )
        difference = (maps.to(dtype) - targets) * used[..., None, None]
        return difference.square().mean() * (0.5 * self.scale)
