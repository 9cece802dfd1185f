"""Small networks for crops of 32 and 64 pixels: few channels, but no resolution given away in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from cdkd_ext.blocks import BasicBlock, halving, resampled, stem_strides
from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.spec import ModelSpec


@dataclass(frozen=True)
class LowResLayout:
    """The shape of a low-resolution network.

    Attributes:
        widths: channels of the branches; each has half the resolution of the one before, the first that of the stem.
        modules: times that the branches compute and exchange.
        blocks: basic blocks of a branch in each module.
    """

    widths: tuple[int, ...]
    modules: int = 2
    blocks: int = 1


class LowRes(PoseNetwork):
    """Parallel branches, as HRNet's, behind a stem that divides by two, with an exchange between neighbours only.

    In a network of stride four a crop of 32 pixels is a map of eight cells; here it is one of sixteen. Input sizes are
    multiples of the stem's stride times two for every further branch. See `PoseNetwork` for the arguments and the
    result.
    """

    def __init__(self, layout: LowResLayout, spec: ModelSpec) -> None:
        multiple = spec.own_stem_stride * 2 ** (len(layout.widths) - 1)
        super().__init__(spec, feature_stride=spec.own_stem_stride, size_multiple=multiple)
        first = layout.widths[0]
        self.stem = nn.Sequential(*_stem(first, spec.own_stem_stride), BasicBlock(first))
        self.transitions = nn.ModuleList(
            halving(width, wider) for width, wider in zip(layout.widths, layout.widths[1:], strict=False)
        )
        self.exchanges = nn.ModuleList(
            Exchange(layout.widths, layout.blocks, top_only=module == layout.modules - 1)
            for module in range(layout.modules)
        )
        self.add_head(first)

    def features(self, images: Tensor) -> Tensor:
        """Map of the first branch, (B, widths[0], H / stride, W / stride)."""
        branches = [self.stem(images)]
        for transition in self.transitions:
            branches.append(transition(branches[-1]))
        for exchange in self.exchanges:
            branches = exchange(branches)
        return branches[0]


class Exchange(nn.Module):
    """Basic blocks on every branch; then each receives from the next lower resolution, and from the next higher one.

    Args:
        widths: channels of the branches.
        blocks: basic blocks of each.
        top_only: only the first branch is needed afterwards.
    """

    def __init__(self, widths: Sequence[int], blocks: int, *, top_only: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in widths
        )
        lower = range(len(widths) - 1)
        self.up = nn.ModuleList(resampled(widths, branch + 1, branch) for branch in lower)
        self.down = nn.ModuleList(
            [] if top_only else (resampled(widths, branch, branch + 1) for branch in lower)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """One map per branch, each half the size of the one before -> maps of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        for branch in reversed(range(len(self.up))):
            maps[branch] = self.relu(maps[branch] + self.up[branch](maps[branch + 1]))
        for branch, layer in enumerate(self.down):
            maps[branch + 1] = self.relu(maps[branch + 1] + layer(maps[branch]))
        return maps


def _stem(width: int, stride: int) -> list[nn.Module]:
    # the halving comes first where there is one: a convolution at full resolution costs more than a branch
    second, first = stem_strides(stride)
    layers: list[nn.Module] = []
    for channels, step in ((3, first), (width, second)):
        layers += [
            nn.Conv2d(channels, width, 3, stride=step, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return layers
