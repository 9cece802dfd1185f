"""OKDHP: three branches of hourglasses that teach each other while they are trained.

Li et al., Online Knowledge Distillation for Efficient Pose Estimation, ICCV 2021. The branches share two hourglasses and have
two of their own; an ensemble of the branches' last heatmaps, weighted for each joint by what a unit sees in the image,
teaches all heatmaps. One branch is a plain network of four hourglasses, see `cdkd_ext.models.extract_branch`.

The release takes the last three of its eight maps for the branches' ends: branch 1's end, branch 2's middle and branch 2's
end. Here they are the ends. It also picks the best branch on the validation people after every epoch; here the ensemble is
decoded, which needs no choice.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cdkd_ext.errors import check
from cdkd_ext.methods.codec import CodecOptions
from cdkd_ext.methods.heatmap import HeatmapCodec
from cdkd_ext.methods.hourglass import (
    HourglassLayout,
    check_poolings,
    draw_convolutions,
    hourglass_stack,
    map_errors,
    to_heatmaps,
    to_next,
)
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions

LAYOUTS = {"okdhp_4": HourglassLayout(4), "okdhp_4_w32": HourglassLayout(4, width=32)}
"""Networks by name, of which each branch has the shape; the last one, for small machines, is not published."""
BRANCHES = 3
"""Networks that teach each other."""
SHARED = 2
"""Hourglasses in front of the branches."""
OWN = 2
"""Hourglasses of each branch."""
_SQUEEZED = 64
# the released schedule: 90 of 150 epochs
_RAMP = 0.6


class OKDHPOutput(NamedTuple):
    """What the branches predict for a batch of crops.

    Attributes:
        maps: (8, B, J, h, w), heatmaps of the shared hourglasses, then of those of branch 0, 1 and 2.
        attention: (B, 3, J), how much each branch counts; sums to one over the branches.
        ensemble: (B, J, h, w), the branches' last heatmaps, weighted.
    """

    maps: Tensor
    attention: Tensor
    ensemble: Tensor

    @property
    def heatmaps(self) -> Tensor:
        """What is decoded: the ensemble."""
        return self.ensemble

    @property
    def feature(self) -> Tensor:
        """The maps that feature distillation compares: the ensemble."""
        return self.ensemble


class OKDHPLoss(LabelLoss):
    """Every heatmap and the ensemble against the labels, and every heatmap against the ensemble.

    The first are half the mean squared difference from Gaussians. The last is the Kullback-Leibler divergence of the
    softmax over a map's cells from the ensemble's, both maps multiplied by the joint's weight before, summed over joints
    and cells and divided by the number of samples and cells; it grows with exp(-5 (1 - p / ramp)^2), p the share of the
    training done. It reaches the ensemble, too, as published.

    Args:
        codec: makes the targets.
        ensemble_weight: of the ensemble against the labels.
        distillation_weight: of the divergences.
        ramp: share of the training until the divergences count fully.
        scale: factor on the result.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from cdkd_ext.methods.heatmap import HeatmapCodec
        >>> from cdkd_ext.methods.okdhp import OKDHPLoss, OKDHPOutput
        >>> maps, attention = torch.randn(8, 2, 17, 16, 16), torch.full((2, 3, 17), 1 / 3)
        >>> output = OKDHPOutput(maps, attention, maps[[3, 5, 7]].mean(0))
        >>> OKDHPLoss(HeatmapCodec((64, 64)))(output, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "okdhp"

    def __init__(
        self,
        codec: HeatmapCodec,
        *,
        ensemble_weight: float = 1.0,
        distillation_weight: float = 2.0,
        ramp: float = _RAMP,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        for name, weight in (
            ("ensemble_weight", ensemble_weight),
            ("distillation_weight", distillation_weight),
        ):
            check(0 <= weight < float("inf"), name, weight, "zero or more")
        check(0 < ramp <= 1, "ramp", ramp, "a share of the training in (0, 1]")
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.codec = codec
        self.ensemble_weight = float(ensemble_weight)
        self.distillation_weight = float(distillation_weight)
        self.ramp = float(ramp)
        self.scale = float(scale)

    def forward(
        self, student: OKDHPOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`."""
        error, used = map_errors(self.codec, student, keypoints, weights)
        labels = len(student.maps) * error(student.maps) + self.ensemble_weight * error(student.ensemble)
        divergence = map_divergence(student.maps, student.ensemble, used)
        return self.scale * (labels + self.distillation_weight * self.rise(progress) * divergence)

    def rise(self, progress: float) -> float:
        """The factor on the divergences after this share of the training."""
        return math.exp(-5 * (1 - min(progress / self.ramp, 1)) ** 2)

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.codec.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)


def map_divergence(maps: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """KL(softmax(w * teacher) || softmax(w * map)) over the cells, summed over maps and joints, per sample and cell.

    Args:
        maps: (S, B, J, h, w).
        teacher: (B, J, h, w).
        weights: (B, J), whose type is computed in.
    """
    factor = weights[..., None]
    target = (teacher.to(weights.dtype).flatten(2) * factor).log_softmax(-1)  # (B, J, h * w)
    logs = (maps.to(weights.dtype).flatten(3) * factor).log_softmax(-1)
    return (target.exp() * (target - logs)).sum() / (target.shape[0] * target.shape[-1])


def attention_layers(width: int, num_joints: int) -> dict[str, nn.Module]:
    """What decides how much each branch counts for each joint (the feature aggregation unit)."""
    return {
        "convs": nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, side, padding=side // 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
            )
            for side in (3, 5, 7)
        ),
        "fc": nn.Linear(width, _SQUEEZED),
        "fcs": nn.ModuleList(nn.Linear(_SQUEEZED, num_joints) for _ in range(BRANCHES)),
    }


class OKDHP(Method):
    """Three branches of four hourglasses; see `Method`."""

    name = "okdhp"
    head = "heatmap"
    networks = tuple(LAYOUTS)
    loss = OKDHPLoss
    codec_type = HeatmapCodec
    trunk = "stem"
    published = ("okdhp_4",)

    def check(self, spec: MethodOptions) -> None:
        """The crops have to be large enough."""
        check_poolings(spec)

    def feature_channels(self, spec: MethodOptions) -> int:
        """J: the ensemble is the feature."""
        return spec.num_joints

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The hourglasses and what weighs the branches, side by side, as published."""
        width, joints = channels[0], spec.num_joints
        layers = attention_layers(width, joints)
        for place in [*_shared(), *(place for branch in range(BRANCHES) for place in _own(branch))]:
            layers[f"ind_{place}"] = hourglass_stack(width)
            layers[f"score_{place}"] = to_heatmaps(width, joints)
            if not _is_last(place):
                layers[f"_fc_{place}"], layers[f"_score_{place}"] = to_next(width, joints)
        return layers

    def initialize(self, layers: dict[str, nn.Module]) -> None:
        """Draw the convolutions as torch does."""
        for layer in layers.values():
            draw_convolutions(layer)

    def read(self, network: Any, features: Tensor) -> OKDHPOutput:
        """The heatmaps of all hourglasses, and the ensemble."""
        shared, x = _run(network, _shared(), features)
        branches = [_run(network, _own(branch), x)[0] for branch in range(BRANCHES)]
        attention = _attention(network, features)
        ends = torch.stack([maps[-1] for maps in branches], 1)  # (B, branches, J, h, w)
        ensemble = (ends * attention[..., None, None]).sum(1)
        return OKDHPOutput(torch.stack(sum(branches, shared)), attention, ensemble)

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> HeatmapCodec:
        """See `Method.codec`."""
        return HeatmapCodec(spec.input_size, spec.decoding)

    def label_loss(self, network: Any, options: LabelLossOptions) -> OKDHPLoss:
        """Labels and the ensemble teach."""
        spec = network.spec
        codec = HeatmapCodec(spec.input_size, spec.decoding, options.heatmap_sigma)
        return OKDHPLoss(codec, scale=options.scale)


def _shared() -> list[str]:
    """What the published names call the shared hourglasses."""
    return [f"s_{stack}" for stack in range(SHARED)]


def _own(branch: int) -> list[str]:
    """What the published names call the hourglasses of a branch."""
    return [f"b_{branch}_s_{stack}" for stack in range(OWN)]


def _is_last(place: str) -> bool:
    """Whether an hourglass is the last of its branch."""
    return place.startswith("b_") and place.endswith(f"_s_{OWN - 1}")


def _run(network: Any, places: list[str], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The heatmaps of hourglasses in a row, and what the last hands on."""
    maps = []
    for place in places:
        y = getattr(network, f"ind_{place}")(x)
        maps.append(getattr(network, f"score_{place}")(y))
        if not _is_last(place):
            x = x + getattr(network, f"_fc_{place}")(y) + getattr(network, f"_score_{place}")(maps[-1])
    return maps, x


def _attention(network: Any, feature: Tensor) -> Tensor:
    """(B, branches, J) from the map (B, width, h, w) in front of all hourglasses."""
    seen = torch.stack([convolution(feature) for convolution in network.convs]).sum(0)
    squeezed = network.fc(seen.mean((2, 3)))
    return torch.stack([layer(squeezed) for layer in network.fcs], 1).softmax(1)
