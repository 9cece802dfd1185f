"""Stacked hourglasses: heatmaps that each next network refines.

Newell et al., Stacked Hourglass Networks for Human Pose Estimation, ECCV 2016, with targets and decoding as HRNet's. Every
hourglass's heatmaps are trained, the last one's are decoded. A network of these has no other backbone than its stem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.blocks import Upsample
from cdkd_ext.errors import check
from cdkd_ext.methods.codec import CodecOptions
from cdkd_ext.methods.heatmap import HeatmapCodec
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.tensor_checks import check_tensor, check_weights

_POOLINGS = 4


@dataclass(frozen=True)
class HourglassLayout:
    """The shape of a network of hourglasses.

    Attributes:
        stacks: hourglasses between an image and the last heatmaps.
        width: channels of every map but the heatmaps.
    """

    stacks: int
    width: int = 256


LAYOUTS = {
    "hourglass_4": HourglassLayout(4),
    "hourglass_8": HourglassLayout(8),
    "hourglass_4_w32": HourglassLayout(4, width=32),
}
"""Plain networks by name; the last one, for small machines, is not published."""


class HourglassOutput(NamedTuple):
    """What a network of hourglasses predicts for a batch of crops.

    Attributes:
        maps: (S, B, J, h, w), heatmaps of each hourglass in turn, all trained towards a Gaussian of height 1.
    """

    maps: Tensor

    @property
    def heatmaps(self) -> Tensor:
        """Those of the last hourglass, (B, J, h, w)."""
        return self.maps[-1]

    @property
    def feature(self) -> Tensor:
        """The maps that feature distillation compares: the heatmaps."""
        return self.heatmaps


class PreActivation(nn.Module):
    """Norm, ReLU and convolution, three times (1x1, 3x3, 1x1), with a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 2
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        out = self.conv3(self.relu(self.bn3(out)))
        return out + (x if self.downsample is None else self.downsample(x))


class Hourglass(nn.Module):
    """Down by four poolings and up again, with a block beside every step; the sides of a map are multiples of 16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # level 0 is the lowest, as published; it has a block more, in the middle
        self.hg = nn.ModuleList(
            nn.ModuleList(nn.Sequential(PreActivation(width, width)) for _ in range(3 if level else 4))
            for level in range(_POOLINGS)
        )
        self.upsample = Upsample(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape."""
        return self._level(_POOLINGS - 1, x)

    def _level(self, level: int, x: Tensor) -> Tensor:
        blocks = list(self.hg[level].children())
        beside, down, up = blocks[:3]
        low = down(functional.max_pool2d(x, 2))
        low = self._level(level - 1, low) if level else blocks[3](low)
        return beside(x) + self.upsample(up(low))


def hourglass_stack(width: int) -> nn.Sequential:
    """An hourglass, a block, and a convolution with its norm and ReLU: (B, width, h, w) -> the same shape."""
    last = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    return nn.Sequential(Hourglass(width), nn.Sequential(PreActivation(width, width)), last)


def to_heatmaps(width: int, num_joints: int) -> nn.Conv2d:
    """The convolution from a stack's output to its heatmaps."""
    return nn.Conv2d(width, num_joints, 1)


def to_next(width: int, num_joints: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The convolutions of a stack's output and of its heatmaps that are added to its input for the next one."""
    return nn.Conv2d(width, width, 1), nn.Conv2d(num_joints, width, 1)


def check_poolings(spec: MethodOptions) -> None:
    """Fail unless four poolings leave whole cells of a map of the described network.

    Raises:
        InputError: a side of the crops does not fit.
    """
    stride = spec.own_stem_stride
    multiple = stride * 2**_POOLINGS
    reason = f"{spec.name} halves a map of 1/{stride} of the crop four times, and has to end at whole cells"
    fits = all(side % multiple == 0 for side in spec.input_size)
    check(fits, "input_size", spec.input_size, f"multiples of {multiple}: {reason}")


def draw_convolutions(module: nn.Module) -> None:
    """Draw fresh weights as torch does: networks without a norm behind each convolution need larger ones than HRNet's."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.reset_parameters()


class HourglassLoss(LabelLoss):
    """Half the mean squared difference of every hourglass's heatmaps from Gaussians, summed over the hourglasses.

    The difference is multiplied by the joint's weight before it is squared, and the mean is over all samples, joints
    and cells, those without a label included.

    Args:
        codec: makes the targets.
        scale: factor on the result.

    Example:
        >>> import torch
        >>> from cdkd_ext.methods.heatmap import HeatmapCodec
        >>> from cdkd_ext.methods.hourglass import HourglassLoss, HourglassOutput
        >>> output = HourglassOutput(torch.randn(4, 2, 17, 16, 16))
        >>> HourglassLoss(HeatmapCodec((64, 64)))(output, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "hourglass"

    def __init__(self, codec: HeatmapCodec, *, scale: float = 1.0) -> None:
        super().__init__()
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.codec = codec
        self.scale = float(scale)

    def forward(
        self, student: HourglassOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`."""
        error, _ = map_errors(self.codec, student, keypoints, weights)
        return error(student.maps) * (len(student.maps) * self.scale)

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.codec.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)


def map_errors(
    codec: HeatmapCodec, student: Any, keypoints: Tensor, weights: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """How far heatmaps (..., B, J, h, w) are from their targets, and the weights (B, J) of joints that have one.

    The distance is half the weighted squared difference, a mean.

    Raises:
        InputError: a shape does not fit, or a weight is negative.
    """
    shape = tuple(student.heatmaps.shape)
    check_tensor("student.maps", student.maps, ("S", "B", "J", "h", "w"))
    check_tensor("keypoints", keypoints, (*shape[:2], 2))
    check_weights("weights", weights, shape[:2])
    targets, used = codec.targets(student, keypoints, weights)

    def error(maps: Tensor) -> Tensor:
        difference = (maps.to(targets.dtype) - targets) * used[..., None, None]
        return 0.5 * difference.square().mean()

    return error, used


class StackedHourglass(Method):
    """Hourglasses in a row; see `Method`."""

    name = "hourglass"
    head = "heatmap"
    networks = tuple(LAYOUTS)
    loss = HourglassLoss
    codec_type = HeatmapCodec
    trunk = "stem"
    published = ("hourglass_4", "hourglass_8")

    def check(self, spec: MethodOptions) -> None:
        """The crops have to be large enough."""
        check_poolings(spec)

    def feature_channels(self, spec: MethodOptions) -> int:
        """J: the heatmaps are the feature."""
        return spec.num_joints

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The hourglasses, each kind of their layers in a list, as published."""
        count, width = LAYOUTS[spec.name].stacks, channels[0]
        stacks = [list(hourglass_stack(width).children()) for _ in range(count)]
        between = [to_next(width, spec.num_joints) for _ in range(count - 1)]
        return {
            "hg": nn.ModuleList(hourglass for hourglass, _, _ in stacks),
            "res": nn.ModuleList(block for _, block, _ in stacks),
            "fc": nn.ModuleList(last for _, _, last in stacks),
            "score": nn.ModuleList(to_heatmaps(width, spec.num_joints) for _ in stacks),
            "fc_": nn.ModuleList(output for output, _ in between),
            "score_": nn.ModuleList(heatmaps for _, heatmaps in between),
        }

    def initialize(self, layers: dict[str, nn.Module]) -> None:
        """Draw the convolutions as torch does."""
        for layer in layers.values():
            draw_convolutions(layer)

    def read(self, network: Any, features: Tensor) -> HourglassOutput:
        """The heatmaps of all hourglasses."""
        x, maps = features, []
        for index, (hourglass, block, last, score) in enumerate(
            zip(network.hg, network.res, network.fc, network.score, strict=True)
        ):
            y = last(block(hourglass(x)))
            maps.append(score(y))
            if index < len(network.fc_):
                x = x + network.fc_[index](y) + network.score_[index](maps[-1])
        return HourglassOutput(torch.stack(maps))

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> HeatmapCodec:
        """See `Method.codec`."""
        return HeatmapCodec(spec.input_size, spec.decoding)

    def label_loss(self, network: Any, options: LabelLossOptions) -> HourglassLoss:
        """The squared differences from Gaussians."""
        spec = network.spec
        codec = HeatmapCodec(spec.input_size, spec.decoding, options.heatmap_sigma)
        return HourglassLoss(codec, scale=options.scale)
