"""What every pose network shares: its head, the published tensor names, and the checks on the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cdkd_ext._checks import check, check_option, check_type

HEADS = ("simcc", "heatmap")
DECODINGS = ("quarter", "dark")
COLOR_ORDERS = ("rgb", "bgr")

# ImageNet statistics, on the 0-255 scale
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


class PoseOutput(NamedTuple):
    """What a pose network with a SimCC head predicts for a batch of crops.

    Attributes:
        feature: last feature map (B, C, h, w), the output of `final_layer`; C = J * channels_per_joint.
        logits_x: (B, J, int(W * split_ratio)), one class per horizontal bin.
        logits_y: (B, J, int(H * split_ratio)), one class per vertical bin.
    """

    feature: Tensor
    logits_x: Tensor
    logits_y: Tensor


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
class PoseOptions:
    """What a user chooses about a pose network of any backbone.

    Attributes:
        input_size: (height, width) of the images in pixels.
        num_joints: J.
        head: "simcc" or "heatmap".
        split_ratio: SimCC bins per pixel.
        channels_per_joint: feature maps that a joint's SimCC classes are read from; 1 for heatmaps.
        decoding: how heatmaps become keypoints, "quarter" or "dark" (see `decode_heatmaps`).
        color_order: "rgb", or "bgr" for weights that were trained on images in OpenCV's order.
    """

    input_size: tuple[int, int]
    num_joints: int
    head: str = "simcc"
    split_ratio: float = 3.0
    channels_per_joint: int = 1
    decoding: str = "quarter"
    color_order: str = "rgb"

    def check(self) -> None:
        """Raise InputError for what no network allows."""
        check_option("head", self.head, HEADS)
        check(_is_size(self.input_size), "input_size", repr(self.input_size), "two integers (height, width)")
        height, width = self.input_size
        check(height > 0 and width > 0, "input_size", f"({height}, {width})", "positive multiples of 32")
        for name in ("num_joints", "channels_per_joint"):
            value = getattr(self, name)
            check(_is_integer(value) and value > 0, name, repr(value), "a positive integer")
        check(
            self.channels_per_joint == 1 or self.head == "simcc",
            "channels_per_joint",
            self.channels_per_joint,
            "1 for a heatmap head",
        )
        check_option("decoding", self.decoding, DECODINGS)
        check_option("color_order", self.color_order, COLOR_ORDERS)
        ratio = self.split_ratio
        check_type("split_ratio", ratio, (int, float), "a number")
        check(0 < ratio < float("inf"), "split_ratio", ratio, "a positive number of bins per pixel")
        check(
            int(min(height, width) * ratio) >= 2,
            "split_ratio",
            ratio,
            f"at least two bins on each axis of a ({height}, {width}) input",
        )


class PoseNetwork(nn.Module):
    """A backbone with one of two heads behind a 1x1 convolution to J maps.

    The SimCC head of Li et al. is one linear layer per axis over the cells of a joint's maps; the heatmap head is
    nothing but the maps. A subclass sets up its layers in `__init__`, implements `features` and calls `add_head`
    last. Backbone and head share one flat name space, because published checkpoints do.

    Args:
        name: the name under which `create_model` knows the network.
        options: see `PoseOptions`.
        feature_stride: input pixels per cell of the feature map.
        size_multiple: both sides of the input must be multiples of this.

    Raises:
        InputError: a size that does not fit, a count or ratio that is not positive, an unknown option.
    """

    def __init__(self, name: str, options: PoseOptions, *, feature_stride: int, size_multiple: int) -> None:
        super().__init__()
        options.check()
        height, width = options.input_size
        check(
            height % size_multiple == 0 and width % size_multiple == 0,
            "input_size",
            f"({height}, {width})",
            f"height and width that are positive multiples of {size_multiple} for {name}",
        )
        self.name = name
        self.input_size = (height, width)
        self.num_joints = options.num_joints
        self.head = options.head
        self.split_ratio = float(options.split_ratio)
        self.channels_per_joint = options.channels_per_joint
        self.decoding = options.decoding
        self.color_order = options.color_order
        self.feature_size = (height // feature_stride, width // feature_stride)

    @property
    def feature_channels(self) -> int:
        """C, the channels of the last feature map."""
        return self.num_joints * self.channels_per_joint

    def add_head(self, channels: int) -> None:
        """Add `final_layer` and, for SimCC, the two linear layers behind a map of `channels` channels."""
        height, width = self.input_size
        cells = self.feature_size[0] * self.feature_size[1] * self.channels_per_joint
        self.final_layer = nn.Conv2d(channels, self.feature_channels, kernel_size=1)
        if self.head == "simcc":
            self.mlp_head_x = nn.Linear(cells, int(width * self.split_ratio))
            self.mlp_head_y = nn.Linear(cells, int(height * self.split_ratio))

    def features(self, images: Tensor) -> Tensor:
        """Feature map (B, C, h, w) of normalised images (B, 3, H, W)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> PoseOutput | HeatmapOutput:
        """Predict from normalised RGB images (B, 3, H, W), floating point, as `normalize_images` returns them.

        Raises:
            InputError: the shape is not that of the network's input.
            TypeError: the images are not a floating-point tensor.
        """
        check_type("images", images, Tensor, "a torch.Tensor")
        if not images.is_floating_point():
            raise TypeError(f"images: expected floating point (see normalize_images), got {images.dtype}")
        height, width = self.input_size
        check(
            images.dim() == 4 and tuple(images.shape[1:]) == (3, height, width),
            "images",
            f"shape {tuple(images.shape)}",
            f"shape (B, 3, {height}, {width}) for this {self.name}",
        )
        if self.color_order == "bgr":
            images = _rgb_to_bgr(images)
        feature = self.final_layer(self.features(images))
        if self.head == "heatmap":
            return HeatmapOutput(feature)
        # a joint's maps lie side by side, as the release's "(joint map)" channels do
        cells = feature.reshape(feature.shape[0], self.num_joints, self.mlp_head_x.in_features)
        return PoseOutput(feature, self.mlp_head_x(cells), self.mlp_head_y(cells))


def normalize_images(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation.

    Args:
        images: RGB, uint8, (B, 3, H, W).

    Returns:
        float32, same shape and memory format.
    """
    check_type("images", images, Tensor, "a torch.Tensor")
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected torch.uint8, got {images.dtype}")
    check(
        images.dim() == 4 and images.shape[1] == 3,
        "images",
        f"shape {tuple(images.shape)}",
        "shape (B, 3, H, W)",
    )
    mean = torch.tensor(_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(_STD, device=images.device).view(3, 1, 1)
    return (images.float() - mean) / std


def channels_last(network: PoseNetwork) -> PoseNetwork:
    """Lay the weights of `network` out channels last, which convolutions run faster in, and return it."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _rgb_to_bgr(images: Tensor) -> Tensor:
    """What normalising a BGR image with the RGB statistics would have given: channels swapped, statistics not."""
    mean = torch.tensor(_MEAN, device=images.device, dtype=images.dtype).view(3, 1, 1)
    std = torch.tensor(_STD, device=images.device, dtype=images.dtype).view(3, 1, 1)
    return ((images * std + mean).flip(1) - mean) / std


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_integer, value))
