"""Residual blocks of HRNet and ResNet, with the published tensor names, and the published initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut, to `expansion` times `inner_channels` channels.

    The 3x3 convolution has the stride, as in the published weights (Caffe's ResNet has it in the first one).
    """

    expansion = 4

    def __init__(self, in_channels: int, inner_channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = inner_channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.conv2 = nn.Conv2d(inner_channels, inner_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner_channels)
        self.conv3 = nn.Conv2d(inner_channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, expansion * inner_channels, h / stride, w / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement by an integer factor."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, factor * h, factor * w)."""
        return functional.interpolate(x, scale_factor=float(self.factor), mode="nearest")


def no_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """A context in which mixed precision is off on a tensor's device; there is none on the device "meta"."""
    device = like.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def stem_strides(stride: int) -> tuple[int, int]:
    """Strides of a stem's two halving layers: 4 is both, 2 the second alone, 1 neither."""
    return (2 if stride == 4 else 1), (1 if stride == 1 else 2)


def halving(in_channels: int, out_channels: int) -> nn.Sequential:
    """A convolution that halves the resolution, with its norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def resampled(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From the resolution and width of branch `source` to those of branch `target`, each half the one before."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(widths[source], widths[target], 1, bias=False),
            nn.BatchNorm2d(widths[target]),
            Upsample(2 ** (source - target)),
        )
    steps = [halving(widths[source], widths[source]) for _ in range(target - source - 1)]
    # the last step has no ReLU: the sum over branches comes first
    return nn.Sequential(*steps, halving(widths[source], widths[target])[:2])


def upsampling(channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Transposed convolutions that each double the resolution, with their norms and ReLUs (SimpleBaselines)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [
            nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return nn.Sequential(*layers)


def initialize(network: nn.Module) -> None:
    """Draw fresh weights of the convolutions."""
    # the published initialisation; small networks from scratch, too, learnt faster from it than from He's
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
