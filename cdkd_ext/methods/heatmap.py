"""Heatmaps: one map per joint, trained towards a Gaussian around the keypoint.

Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018; Sun et al., HRNet, CVPR 2019; with the option
`decoding` "dark" Zhang et al., DARK, CVPR 2020. The maps are those of a 1x1 convolution behind the backbone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cdkd_ext.errors import check, check_option
from cdkd_ext.methods.codec import Codec, CodecOptions
from cdkd_ext.methods.heatmaps import DECODINGS, check_sigma, decode_heatmaps, heatmap_sigma, heatmap_targets
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.tensor_checks import check_tensor, check_weights


class HeatmapOutput(NamedTuple):
    """What a pose network with a heatmap head predicts for a batch of crops.

    Attributes:
        feature: last feature map (B, J, h, w), the output of `final_layer`: the heatmaps themselves.
    """

    feature: Tensor

    @property
    def heatmaps(self) -> Tensor:
        """One map per joint, (B, J, h, w), trained towards a Gaussian of height 1."""
        return self.feature


@dataclass(frozen=True)
class HeatmapCodec(Codec):
    """Cell i of an axis stands for pixel stride · i.

    Args:
        input_size: (height, width) of the crops in pixels.
        decoding: "quarter" is HRNet's, "dark" is DARK's, whose targets are not centred on cells (`decode_heatmaps`).
        sigma: standard deviation of the targets in cells; None takes `heatmap_sigma` of the map.
    """

    input_size: tuple[int, int]
    decoding: str = "quarter"
    sigma: float | None = None
    score_threshold: ClassVar[float] = 0.2  # as in HRNet's code

    def __post_init__(self) -> None:
        check_option("decoding", self.decoding, DECODINGS)
        check_sigma(self.sigma)

    def places_per_pixel(self, output: HeatmapOutput) -> tuple[float, float]:
        """Cells per pixel: one over the stride."""
        height, width = output.heatmaps.shape[2:]
        return width / self.input_size[1], height / self.input_size[0]

    def targets(self, output: HeatmapOutput, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, J, h, w) with Gaussians around the keypoints; see `heatmap_targets` and `Codec.targets`."""
        height, width = output.heatmaps.shape[2:]
        # float32 at least: float16 cannot hold a pixel coordinate to a fraction of a cell
        dtype = torch.promote_types(keypoints.dtype, torch.float32)
        return heatmap_targets(
            keypoints.to(dtype),
            weights,
            self.input_size,
            (height, width),
            heatmap_sigma((height, width)) if self.sigma is None else self.sigma,
            quantized=self.decoding == "quarter",
        )

    def decode(
        self,
        output: HeatmapOutput,
        *,
        flipped: tuple[HeatmapOutput, Tensor] | None = None,
        to_image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The highest cells, refined; scores are heights. See `decode_heatmaps` and `Codec.decode`."""
        return decode_heatmaps(
            output.heatmaps,
            self.input_size,
            flipped=None if flipped is None else (flipped[0].heatmaps, flipped[1]),
            to_image=to_image,
            method=self.decoding,
        )


class HeatmapLoss(LabelLoss):
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
        >>> from cdkd_ext.codecs import HeatmapOutput
        >>> student = HeatmapOutput(torch.randn(2, 17, 16, 16))
        >>> HeatmapLoss((64, 64))(student, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "heatmap"
    replayable = True
    has_heatmaps = True

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
        check_sigma(sigma)
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.input_size = (input_size[0], input_size[1])
        self.sigma = sigma
        self.quantized = quantized
        self.scale = float(scale)

    @classmethod
    def of(cls, student: Any, *, sigma: float | None = None, scale: float = 1.0) -> HeatmapLoss:
        """The loss of a heatmap network: the targets of its crops' size, as its decoding was published.

        Args:
            student: a network with a heatmap head.
            sigma: see `HeatmapLoss`.
            scale: see `HeatmapLoss`.
        """
        spec = student.spec
        return cls(spec.input_size, sigma=sigma, quantized=spec.decoding == "quarter", scale=scale)

    def forward(
        self, student: HeatmapOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """Mean loss, a scalar.

        Args:
            student: its feature (B, J, h, w) is the heatmaps.
            keypoints: (B, J, 2) x and y in pixels of the student's crop; anything where the weight is 0.
            weights: (B, J) factors, 0 for joints without a label.
            progress: plays no part.

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

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)


class Heatmap(Method):
    """One map per joint; see `Method`."""

    name = head = "heatmap"
    loss = HeatmapLoss
    codec_type = HeatmapCodec
    has_heatmaps = True

    def places(self, spec: MethodOptions) -> tuple[int, int]:
        """The map's cells."""
        height, width = spec.input_size
        return width // spec.own_stem_stride, height // spec.own_stem_stride

    def feature_channels(self, spec: MethodOptions) -> int:
        """J: the heatmaps are the feature."""
        return spec.num_joints

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The convolution to the joints' maps."""
        return {"final_layer": nn.Conv2d(channels[0], spec.num_joints, kernel_size=1)}

    def read(self, network: Any, features: Tensor) -> HeatmapOutput:
        """The maps."""
        return HeatmapOutput(network.final_layer(features))

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> HeatmapCodec:
        """See `Method.codec`."""
        return HeatmapCodec(spec.input_size, spec.decoding)

    def label_loss(self, network: Any, options: LabelLossOptions) -> HeatmapLoss:
        """The squared difference from Gaussians."""
        return HeatmapLoss.of(network, sigma=options.heatmap_sigma, scale=options.scale)
