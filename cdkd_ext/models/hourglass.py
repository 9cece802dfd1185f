"""Stacked hourglasses (Newell et al.), and OKDHP's three branches of them (Li et al., Online Knowledge Distillation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.models.blocks import Upsample

_WIDTH = 256
_DEPTH = 4
_SQUEEZED = 64


@dataclass(frozen=True)
class HourglassLayout:
    """The shape of a network of hourglasses.

    Attributes:
        stacks: hourglasses between an image and the last heatmaps.
        branches: OKDHP's networks that share what lies in front of the last two stacks; 1 is a plain network.
    """

    stacks: int
    branches: int = 1


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
    """Down by four poolings and up again, with a block beside every step.

    The sides of the map are multiples of 16.
    """

    def __init__(self) -> None:
        super().__init__()
        # the published order: level 0 is the lowest and has a block more, in the middle
        self.hg = nn.ModuleList(
            nn.ModuleList(nn.Sequential(PreActivation(_WIDTH, _WIDTH)) for _ in range(4 if level == 0 else 3))
            for level in range(_DEPTH)
        )
        self.upsample = Upsample(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 256, h, w) -> the same shape."""
        beside = []
        for level in reversed(self.hg):
            skip, down = level[0], level[1]
            beside.append(skip(x))
            x = down(functional.max_pool2d(x, 2))
        x = self.hg[0][3](x)
        for level in self.hg:
            x = beside.pop() + self.upsample(level[2](x))
        return x


class Stem(nn.Module):
    """From an image to 256 channels at a quarter of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(PreActivation(64, 128))
        self.maxpool = nn.MaxPool2d(2)
        self.layer2 = nn.Sequential(PreActivation(128, _WIDTH))
        self.layer3 = nn.Sequential(PreActivation(_WIDTH, _WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> (B, 256, H / 4, W / 4)."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.maxpool(self.layer1(x))))


class Stack(nn.Module):
    """An hourglass, its heatmaps, and what it hands to the next one.

    Args:
        num_joints: J.
        last: there is no next one.
    """

    def __init__(self, num_joints: int, *, last: bool) -> None:
        super().__init__()
        self.hg = Hourglass()
        self.res = nn.Sequential(PreActivation(_WIDTH, _WIDTH))
        self.fc = nn.Sequential(nn.Conv2d(_WIDTH, _WIDTH, 1), nn.BatchNorm2d(_WIDTH), nn.ReLU(inplace=True))
        self.score = nn.Conv2d(_WIDTH, num_joints, 1)
        self.last = last
        if not last:
            self.fc_ = nn.Conv2d(_WIDTH, _WIDTH, 1)
            self.score_ = nn.Conv2d(num_joints, _WIDTH, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 256, h, w) -> heatmaps (B, J, h, w), and the next stack's input; after the last one its own output."""
        y = self.fc(self.res(self.hg(x)))
        heatmaps = self.score(y)
        return heatmaps, y if self.last else x + self.fc_(y) + self.score_(heatmaps)


class BranchAttention(nn.Module):
    """How much each branch's heatmaps count in the ensemble of each joint (OKDHP's feature aggregation unit).

    Args:
        branches: of the network; as many convolutions, of 3x3, 5x5 and so on, look at its feature.
        num_joints: J.
    """

    def __init__(self, branches: int, num_joints: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(_WIDTH, _WIDTH, 3 + 2 * index, padding=1 + index),
                nn.BatchNorm2d(_WIDTH),
                nn.ReLU(inplace=True),
            )
            for index in range(branches)
        )
        self.fc = nn.Linear(_WIDTH, _SQUEEZED)
        self.fcs = nn.ModuleList(nn.Linear(_SQUEEZED, num_joints) for _ in range(branches))

    def forward(self, feature: Tensor) -> Tensor:
        """(B, 256, h, w) -> weights (B, branches, J) that sum to one over the branches."""
        seen = torch.stack([convolution(feature) for convolution in self.convs]).sum(0)
        squeezed = self.fc(seen.mean((2, 3)))
        return torch.stack([layer(squeezed) for layer in self.fcs], 1).softmax(1)


def run_stacks(stacks: Sequence[nn.Module], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Heatmaps of each stack in a row, and the output of the last."""
    maps = []
    for stack in stacks:
        heatmaps, x = stack(x)
        maps.append(heatmaps)
    return maps, x
