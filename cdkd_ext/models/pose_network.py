"""What every pose network shares: its method's layers, the published tensor names, and the checks on the input."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cdkd_ext.blocks import initialize
from cdkd_ext.errors import check, check_type
from cdkd_ext.methods.method import Trunk
from cdkd_ext.models.spec import ModelSpec

# ImageNet statistics, on the 0-255 scale
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
_TRUNKS = {
    "map": "one map",
    "two_maps": "two independent maps",
    "pyramid": "maps of several resolutions",
    "stem": "a map of a stem alone",
}


class PoseNetwork(nn.Module):
    """A backbone with the layers of a method behind it.

    A subclass sets up its layers in `__init__`, implements `features` and calls `add_head` last. Backbone and head share
    one flat name space, because published checkpoints do.

    Args:
        spec: the network's description.
        feature_stride: input pixels per cell of the feature map.
        size_multiple: both sides of the input must be multiples of this.

    Attributes:
        spec: the description.
        feature_size: (h, w) of the last feature map.
        trunks: what `features` can return for a method, see `methods.Method`.
        head_parts: names of the layers that a published backbone does not have.
        frozen_parts: names of the layers that stay as they are in training, their batch norms' statistics included.

    Raises:
        InputError: a size that does not fit, or a method that the backbone has no maps for.
    """

    trunks: ClassVar[tuple[Trunk, ...]] = ("map",)

    def __init__(self, spec: ModelSpec, *, feature_stride: int, size_multiple: int) -> None:
        super().__init__()
        check_type("spec", spec, ModelSpec, "a ModelSpec")
        height, width = spec.input_size
        check(
            height % size_multiple == 0 and width % size_multiple == 0,
            "input_size",
            f"({height}, {width})",
            f"height and width that are positive multiples of {size_multiple} for {spec.name}",
        )
        wanted = spec.method.trunk
        expected = f"another for {spec.name}, which does not give {_TRUNKS[wanted]}"
        check(wanted in self.trunks, "head", repr(spec.head), expected)
        self.spec = spec
        self.head_parts: tuple[str, ...] = ()
        self.frozen_parts: tuple[str, ...] = ()
        self.feature_size = (height // feature_stride, width // feature_stride)

    @property
    def name(self) -> str:
        """The name under which `create_model` knows the network."""
        return self.spec.name

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the crops in pixels."""
        return self.spec.input_size

    @property
    def num_joints(self) -> int:
        """J."""
        return self.spec.num_joints

    @property
    def head(self) -> str:
        """Kind of output, such as "simcc" or "heatmap"."""
        return self.spec.head

    @property
    def split_ratio(self) -> float:
        """SimCC bins per pixel."""
        return self.spec.split_ratio

    @property
    def channels_per_joint(self) -> int:
        """Feature maps that a joint's SimCC classes are read from."""
        return self.spec.channels_per_joint

    @property
    def decoding(self) -> str:
        """How heatmaps become keypoints."""
        return self.spec.decoding

    @property
    def color_order(self) -> str:
        """What the first convolution expects, "rgb" or "bgr"."""
        return self.spec.color_order

    @property
    def feature_channels(self) -> int:
        """C, the channels of the last feature map."""
        return self.spec.feature_channels

    def add_head(self, *channels: int) -> None:
        """Add the method's layers behind maps of so many channels, and draw the weights of the whole network."""
        method = self.spec.method
        layers = method.layers(self.spec, channels, self.feature_size)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.head_parts = (*self.head_parts, *(name for name in layers if name not in method.backbone_parts))
        if not next(self.parameters()).is_meta:
            initialize(self)
            method.initialize(layers)

    def train(self, mode: bool = True) -> PoseNetwork:
        """Switch to training or evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for name in self.frozen_parts:
            self.get_submodule(name).eval()
        return self

    def features(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the method reads of normalised images (B, 3, H, W): a map (B, C, h, w), or several."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Any:
        """Predict from RGB images (B, 3, H, W): uint8, or floating point as `normalize_images` returns them.

        The network normalises and orders the channels itself.

        Returns:
            The named tuple of its method, such as `SimCCOutput`.

        Raises:
            InputError: the shape is not that of the network's input.
            TypeError: the images are not a tensor of one of these types.
        """
        check_type("images", images, Tensor, "a torch.Tensor")
        height, width = self.input_size
        check(
            images.dim() == 4 and tuple(images.shape[1:]) == (3, height, width),
            "images",
            f"shape {tuple(images.shape)}",
            f"shape (B, 3, {height}, {width}) for this {self.name}",
        )
        swapped = self.color_order == "bgr"
        if images.is_floating_point():
            images = _rgb_to_bgr(images) if swapped else images
        elif images.dtype == torch.uint8:
            images = normalize_images(images.flip(1) if swapped else images).to(self._dtype())
        else:
            raise TypeError(f"images: expected uint8, or normalised floating point, got {images.dtype}")
        return self.spec.method.read(self, self.features(images))

    def _dtype(self) -> torch.dtype:
        """What the head computes in; a folded network has no parameters but the head's."""
        return next((value.dtype for value in self.parameters()), torch.float32)


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
    mean, std = _planes(_MEAN, images.device), _planes(_STD, images.device)
    if torch.compiler.is_exporting():
        # onnxruntime lays channels last and subtracts along the innermost axis: a whole row, not three numbers
        mean, std = (planes.expand(3, 1, images.shape[-1]) for planes in (mean, std))
    return (images.float() - mean) / std


def channels_last(network: PoseNetwork) -> PoseNetwork:
    """Lay the weights of `network` out channels last, which convolutions run faster in, and return it."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _rgb_to_bgr(images: Tensor) -> Tensor:
    """What normalising a BGR image with the RGB statistics would have given: channels swapped, statistics not."""
    mean, std = (_planes(values, images.device, images.dtype) for values in (_MEAN, _STD))
    return images.flip(1) * (std.flip(0) / std) + (mean.flip(0) - mean) / std


def _planes(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """(3, 1, 1), filled on the device: a GPU would be waited for while numbers are copied from the host."""
    return torch.cat([torch.full((1, 1, 1), value, dtype=dtype, device=device) for value in values])
