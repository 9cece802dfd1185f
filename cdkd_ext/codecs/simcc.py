"""SimCC: a keypoint's coordinates as classes along each axis (Li et al., SimCC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from cdkd_ext import ops
from cdkd_ext.codecs.codec import Codec, CodecOptions
from cdkd_ext.errors import check

# no bin: ops.simcc_kl gives such a row no loss
_OUTSIDE = -1.0


class SimCCOutput(NamedTuple):
    """What a pose network with a SimCC head predicts for a batch of crops.

    Attributes:
        feature: last feature map (B, C, h, w), the output of `final_layer`; C = J * channels_per_joint.
        logits_x: (B, J, int(W * split_ratio)), one class per horizontal bin.
        logits_y: (B, J, int(H * split_ratio)), one class per vertical bin.
    """

    feature: Tensor
    logits_x: Tensor
    logits_y: Tensor


def num_bins(size: tuple[int, int], split_ratio: float) -> tuple[int, int]:
    """Return the numbers of bins (along x, along y) of a crop of (height, width) `size`."""
    height, width = size
    check(split_ratio > 0, "split_ratio", split_ratio, "a positive number")
    return int(width * split_ratio), int(height * split_ratio)


@dataclass(frozen=True)
class SimCCCodec(Codec):
    """Bin i of an axis stands for pixel i / split_ratio.

    Args:
        split_ratio: bins per pixel.
        score: of the two axes' maxima, "min", "max" or "mean" (`cdkd_ext.ops.simcc_decode`).

    Example:
        >>> import torch
        >>> from cdkd_ext.codecs import SimCCCodec, SimCCOutput
        >>> output = SimCCOutput(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 64), torch.zeros(1, 1, 64))
        >>> SimCCCodec(2.0).targets(output, torch.tensor([[[3.0, 7.25]]]), torch.ones(1, 1))[0]
        tensor([[[ 6.0000, 14.5000]]])
    """

    split_ratio: float
    score: str = "min"
    score_threshold: ClassVar[float] = 0.02  # as in SimCC's code

    def __post_init__(self) -> None:
        ratio = self.split_ratio
        check(0 < ratio < float("inf"), "split_ratio", ratio, "a positive number of bins per pixel")

    @classmethod
    def of(cls, spec: CodecOptions, *, simcc_score: str = "min") -> SimCCCodec:
        """See `Codec.of`."""
        return cls(spec.split_ratio, simcc_score)

    def places_per_pixel(self, output: SimCCOutput) -> tuple[float, float]:
        """The split ratio, on both axes."""
        return self.split_ratio, self.split_ratio

    def targets(self, output: SimCCOutput, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Continuous bin coordinates (B, J, 2), as `cdkd_ext.ops.simcc_kl` takes them.

        A joint whose rounded coordinate lies outside the bins of either axis has no target: -1, with weight 0.
        See `Codec.targets` for the arguments.
        """
        # float32 at least: float16 cannot hold a bin coordinate to a fraction of a bin
        dtype = torch.promote_types(keypoints.dtype, torch.float32)
        bins = keypoints.to(dtype) * self.split_ratio
        x, y = bins.round().unbind(-1)  # (B, J) each
        inside = (x >= 0) & (x < output.logits_x.shape[-1]) & (y >= 0) & (y < output.logits_y.shape[-1])
        used = inside & (weights > 0)
        return torch.where(used[..., None], bins, _OUTSIDE), weights * used

    def decode(
        self,
        output: SimCCOutput,
        *,
        flipped: tuple[SimCCOutput, Tensor] | None = None,
        to_image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The most probable bins; scores are probabilities. See `Codec.decode` and `cdkd_ext.ops.simcc_decode`."""
        mirrored = None
        if flipped is not None:
            mirrored = (flipped[0].logits_x, flipped[0].logits_y, flipped[1])
        return ops.simcc_decode(
            output.logits_x,
            output.logits_y,
            self.split_ratio,
            flipped=mirrored,
            to_image=to_image,
            score=self.score,
        )
