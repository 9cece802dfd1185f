"""SimCC: a keypoint's coordinates as classes along each axis.

Li et al., SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation, ECCV 2022. Behind the 1x1
convolution to J maps stands one linear layer per axis over the cells of a joint's maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cdkd_ext import ops
from cdkd_ext.errors import check, check_option
from cdkd_ext.methods.codec import Codec, CodecOptions
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.tensor_checks import check_tensor, check_weights

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


class SimCCLoss(LabelLoss):
    """KL divergence of the predicted bins from hard or Gaussian labels at split_ratio · coordinate.

    A joint whose label falls outside the bins of either axis has no loss, nor has one of weight 0.

    Args:
        split_ratio: bins per pixel of the student.
        kind: "gaussian" or "hard".
        sigma: standard deviation of the Gaussian in bins.
        label_smoothing: share of a hard label that is spread over the other bins, in [0, 1).
        reduction: "row_mean" sums over bins and averages over samples and joints; "sum" (published for COCO)
            sums over bins and joints and averages over samples; "mean" (published for MPII and for Gaussian
            labels) averages over bins, samples and joints. All of them add the two axes.
        scale: factor on the result; the CDKD release has 1000 on the "mean" form.

    Raises:
        InputError: a number is out of range or an option is unknown.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import SimCCLoss
        >>> from cdkd_ext.codecs import SimCCOutput
        >>> student = SimCCOutput(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 64), torch.randn(2, 17, 64))
        >>> SimCCLoss(2.0)(student, torch.rand(2, 17, 2) * 31, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "simcc"
    replayable = True
    has_classes = True

    def __init__(
        self,
        split_ratio: float,
        *,
        kind: str = "gaussian",
        sigma: float = 1.0,
        label_smoothing: float = 0.0,
        reduction: str = "row_mean",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check(
            0 < split_ratio < float("inf"), "split_ratio", split_ratio, "a positive number of bins per pixel"
        )
        check_option("kind", kind, ("gaussian", "hard"))
        check(0 < sigma < float("inf"), "sigma", sigma, "a positive number of bins")
        check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "a share in [0, 1)")
        check_option("reduction", reduction, ("row_mean", "sum", "mean"))
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.split_ratio = float(split_ratio)
        self.kind = kind
        self.sigma = float(sigma)
        self.label_smoothing = float(label_smoothing)
        self.reduction = reduction
        self.scale = float(scale)

    def forward(
        self, student: SimCCOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """Reduced loss, a scalar.

        Args:
            student: logits (B, J, N) per axis.
            keypoints: (B, J, 2) x and y in pixels of the student's crop; anything where the weight is 0.
            weights: (B, J) factors, 0 for joints without a label.
            progress: plays no part.

        Raises:
            InputError: a shape does not fit, or a weight is negative.
        """
        check_tensor("student.logits_x", student.logits_x, ("B", "J", "N"))
        batch, joints, _ = student.logits_x.shape
        check_tensor("student.logits_y", student.logits_y, (batch, joints, "N"))
        check_tensor("keypoints", keypoints, (batch, joints, 2))
        check_weights("weights", weights, (batch, joints))
        targets, used = SimCCCodec(self.split_ratio).targets(student, keypoints, weights)
        total = targets.new_zeros(())
        for axis, axis_logits in enumerate((student.logits_x, student.logits_y)):
            rows = ops.simcc_kl(
                axis_logits,
                targets[..., axis],
                label_smoothing=self.label_smoothing if self.kind == "hard" else 0.0,
                sigma=self.sigma if self.kind == "gaussian" else None,
            )
            total = total + self._reduce(rows * used, axis_logits.shape[-1])
        return total * self.scale

    def _reduce(self, rows: Tensor, bins: int) -> Tensor:
        if self.reduction == "sum":
            return rows.sum(1).mean()
        return rows.mean() / bins if self.reduction == "mean" else rows.mean()

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the bins per pixel have to agree."""
        expected = f"the student's {spec.split_ratio} bins per pixel"
        check(self.split_ratio == spec.split_ratio, "label_loss.split_ratio", self.split_ratio, expected)


class SimCC(Method):
    """Classes along each axis; see `Method`."""

    name = head = "simcc"
    takes_low_resolution = True
    options = frozenset({"split_ratio", "channels_per_joint"})
    loss = SimCCLoss
    codec_type = SimCCCodec
    has_classes = True

    def places(self, spec: MethodOptions) -> tuple[int, int]:
        """The axes' bins."""
        return spec.num_bins

    def feature_channels(self, spec: MethodOptions) -> int:
        """J maps, or `channels_per_joint` times as many."""
        return spec.num_joints * spec.channels_per_joint

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The convolution to the joints' maps, and a linear layer per axis."""
        bins_x, bins_y = spec.num_bins
        cells = size[0] * size[1] * spec.channels_per_joint
        return {
            "final_layer": nn.Conv2d(channels[0], self.feature_channels(spec), kernel_size=1),
            "mlp_head_x": nn.Linear(cells, bins_x),
            "mlp_head_y": nn.Linear(cells, bins_y),
        }

    def read(self, network: Any, features: Tensor) -> SimCCOutput:
        """A joint's classes from its maps."""
        feature = network.final_layer(features)
        # a joint's maps lie side by side, as the release's "(joint map)" channels do
        cells = feature.reshape(feature.shape[0], network.num_joints, network.mlp_head_x.in_features)
        return SimCCOutput(feature, network.mlp_head_x(cells), network.mlp_head_y(cells))

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> SimCCCodec:
        """See `Method.codec`."""
        return SimCCCodec(spec.split_ratio, simcc_score)

    def label_loss(self, network: Any, options: LabelLossOptions) -> SimCCLoss:
        """The KL divergence from labels."""
        return SimCCLoss(
            network.spec.split_ratio,
            kind=options.kind,
            sigma=options.sigma,
            label_smoothing=options.label_smoothing,
            reduction=options.reduction,
            scale=options.scale,
        )
