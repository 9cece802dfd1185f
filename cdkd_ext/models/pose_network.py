"""What every pose network shares: the SimCC head, the published tensor names, and the checks on the input."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cdkd_ext._checks import check, check_option, check_type

HEADS = ("simcc",)

# ImageNet statistics, on the 0-255 scale
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


class PoseOutput(NamedTuple):
    """What a pose network predicts for a batch of crops.

    Attributes:
        feature: last feature map (B, J, h, w), the output of `final_layer`.
        logits_x: (B, J, int(W * split_ratio)), one class per horizontal bin.
        logits_y: (B, J, int(H * split_ratio)), one class per vertical bin.
    """

    feature: Tensor
    logits_x: Tensor
    logits_y: Tensor


class PoseNetwork(nn.Module):
    """A backbone with the SimCC head of Li et al.: a 1x1 convolution to J maps, one linear layer per axis.

    A subclass sets up its layers in `__init__`, implements `features` and calls `add_head` last. Backbone and
    head share one flat name space, because published checkpoints do.

    Args:
        name: the name under which `create_model` knows the network.
        input_size: (height, width) of the images in pixels.
        num_joints: J.
        head: "simcc".
        split_ratio: bins per pixel.
        feature_stride: input pixels per cell of the feature map.
        size_multiple: both sides of the input must be multiples of this.

    Raises:
        InputError: a size that does not fit, a count or ratio that is not positive, an unknown head.
    """

    def __init__(
        self,
        name: str,
        *,
        input_size: tuple[int, int],
        num_joints: int,
        head: str,
        split_ratio: float,
        feature_stride: int,
        size_multiple: int,
    ) -> None:
        super().__init__()
        check_option("head", head, HEADS)
        check(_is_size(input_size), "input_size", repr(input_size), "two integers (height, width)")
        height, width = input_size
        check(
            height > 0 and width > 0 and height % size_multiple == 0 and width % size_multiple == 0,
            "input_size",
            f"({height}, {width})",
            f"height and width that are positive multiples of {size_multiple} for {name}",
        )
        check(
            _is_integer(num_joints) and num_joints > 0, "num_joints", repr(num_joints), "a positive integer"
        )
        check_type("split_ratio", split_ratio, (int, float), "a number")
        check(
            0 < split_ratio < float("inf"), "split_ratio", split_ratio, "a positive number of bins per pixel"
        )
        check(
            int(min(height, width) * split_ratio) >= 2,
            "split_ratio",
            split_ratio,
            f"at least two bins on each axis of a ({height}, {width}) input",
        )
        self.name = name
        self.input_size = (height, width)
        self.num_joints = num_joints
        self.head = head
        self.split_ratio = float(split_ratio)
        self.feature_size = (height // feature_stride, width // feature_stride)

    def add_head(self, channels: int) -> None:
        """Add `final_layer` and the two linear layers behind a feature map of `channels` channels."""
        height, width = self.input_size
        cells = self.feature_size[0] * self.feature_size[1]
        self.final_layer = nn.Conv2d(channels, self.num_joints, kernel_size=1)
        self.mlp_head_x = nn.Linear(cells, int(width * self.split_ratio))
        self.mlp_head_y = nn.Linear(cells, int(height * self.split_ratio))

    def features(self, images: Tensor) -> Tensor:
        """Feature map (B, C, h, w) of normalised images (B, 3, H, W)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> PoseOutput:
        """Predict from normalised images (B, 3, H, W), floating point, as `normalize_images` returns them.

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
        feature = self.final_layer(self.features(images))
        cells = feature.flatten(2)
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


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_integer, value))
