"""HRNet (Sun et al., Deep High-Resolution Representation Learning), with the published tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn

from cdkd_ext.blocks import BasicBlock, Bottleneck, halving, resampled, stem_strides
from cdkd_ext.methods.method import Trunk
from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.spec import ModelSpec


@dataclass(frozen=True)
class HRNetLayout:
    """The shape of an HRNet; the defaults are the published one.

    Attributes:
        width: channels of the highest resolution; each lower one has twice as many.
        modules: fusion modules in stages 2, 3 and 4.
        blocks: basic blocks on each branch of a module.
        stem_width: channels of the stem and inner channels of the bottlenecks behind it.
        bottlenecks: number of bottlenecks in `layer1`.
    """

    width: int
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    stem_width: int = 64
    bottlenecks: int = 4


class HRNet(PoseNetwork):
    """High-resolution network with up to four parallel branches, each of half the resolution of the one before.

    Input sizes are multiples of 32 (of 16 and 8 behind a stem of stride 2 and 1), square or not. See `PoseNetwork` for
    the arguments and the result.
    """

    trunks: ClassVar[tuple[Trunk, ...]] = ("map", "two_maps", "pyramid")

    def __init__(self, layout: HRNetLayout, spec: ModelSpec) -> None:
        stride = spec.own_stem_stride
        super().__init__(spec, feature_stride=stride, size_multiple=8 * stride)
        stem = layout.stem_width
        first, second = stem_strides(stride)
        self.conv1 = nn.Conv2d(3, stem, 3, stride=first, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)

        expanded = stem * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            Bottleneck(stem, stem), *(Bottleneck(expanded, stem) for _ in range(layout.bottlenecks - 1))
        )
        widths = [layout.width * 2**branch for branch in range(4)]
        self.transition1 = _transition([expanded], widths[:2])
        self.stage2 = _stage(widths[:2], layout.modules[0], layout.blocks)
        self.transition2 = _transition(widths[:2], widths[:3])
        self.stage3 = _stage(widths[:3], layout.modules[1], layout.blocks)
        self.transition3 = _transition(widths[:3], widths)
        trunk = spec.method.trunk
        self.stage4 = _stage(widths, layout.modules[2], layout.blocks, top_only=trunk != "pyramid")
        if trunk == "two_maps":
            # the names of CAL, whose second map is of offsets
            self.transition3_om = _transition(widths[:3], widths)
            self.stage4_om = _stage(widths, layout.modules[2], layout.blocks, top_only=True)
            self.head_parts = ("transition3_om", "stage4_om")
        self.add_head(*{"map": widths[:1], "two_maps": widths[:1] * 2, "pyramid": widths}[trunk])

    def features(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Highest-resolution map of stage 4, (B, width, H / stride, W / stride) behind a stem of that stride.

        For methods that read more, the same of a second stage 4, or all its maps.
        """
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        branches = self.stage2(_widen(self.transition1, [self.layer1(x)]))
        branches = self.stage3(_widen(self.transition2, branches))
        maps = self.stage4(_widen(self.transition3, branches))
        if self.spec.method.trunk == "two_maps":
            return maps[0], self.stage4_om(_widen(self.transition3_om, branches))[0]
        return tuple(maps) if self.spec.method.trunk == "pyramid" else maps[0]


class FusionModule(nn.Module):
    """Parallel branches of basic blocks, then every branch (or only the top one) receives the sum of all."""

    def __init__(self, widths: Sequence[int], blocks: int, top_only: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            _FusedSum(resampled(widths, source, target) for source in range(len(widths)))
            for target in range(1 if top_only else len(widths))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """One map per branch, each half the size of the one before -> the fused maps."""
        maps = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        return [self.relu(layer(maps)) for layer in self.fuse_layers]


class _FusedSum(nn.ModuleList):
    """Sum of all branches, each brought to one resolution and width by its own layer."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        resampled = [layer(x) for layer, x in zip(self, maps, strict=True)]
        return reduce(torch.add, resampled)


def _transition(widths: Sequence[int], next_widths: Sequence[int]) -> nn.ModuleList:
    """Layers from the branches of one stage to those of the next, which has one branch more."""
    layers: list[nn.Module] = []
    for branch, next_width in enumerate(next_widths):
        if branch == len(widths):
            layers.append(nn.Sequential(halving(widths[-1], next_width)))
        elif widths[branch] == next_width:
            layers.append(nn.Identity())
        else:
            layers.append(
                nn.Sequential(
                    nn.Conv2d(widths[branch], next_width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(next_width),
                    nn.ReLU(inplace=True),
                )
            )
    return nn.ModuleList(layers)


def _widen(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
    """Apply a transition; the new branch grows out of the lowest resolution so far."""
    sources = [*branches, branches[-1]]
    return [layer(x) for layer, x in zip(transition, sources, strict=True)]


def _stage(widths: Sequence[int], modules: int, blocks: int, top_only: bool = False) -> nn.Sequential:
    return nn.Sequential(
        *(FusionModule(widths, blocks, top_only and module == modules - 1) for module in range(modules))
    )
