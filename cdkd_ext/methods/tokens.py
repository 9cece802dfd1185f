"""Keypoint tokens among the tokens of an image (Li et al., TokenPose), with the published tensor names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.errors import check


@dataclass(frozen=True)
class TokenLayout:
    """The shape of a token network.

    Attributes:
        depth: transformer layers, over all stacks.
        heads: of the attention.
        patch: (height, width) in cells of the feature map of what becomes one visual token.
        stacks: how many stacks of layers there are, whose keypoint tokens are put beside each other at the end.
        width: channels of a token.
        expansion: how many times as many channels a layer's hidden ones are.
    """

    depth: int
    heads: int = 8
    patch: tuple[int, int] = (4, 4)
    stacks: int = 1
    width: int = 192
    expansion: int = 3

    def check_fits(self, feature_size: tuple[int, int]) -> None:
        """Fail unless the map (h, w) is whole patches, and the layers whole stacks.

        Raises:
            InputError: a number is not positive or does not divide what it has to.
        """
        check(self.depth > 0, "depth", self.depth, "a positive number of layers")
        check(self.depth % self.stacks == 0, "depth", self.depth, f"a multiple of {self.stacks} stacks")
        heads, width = self.heads, self.width
        check(heads > 0 and width % heads == 0, "heads", heads, f"a divisor of {width} channels")
        check(min(self.patch) > 0, "patch", self.patch, "positive (height, width)")
        fits = all(size % side == 0 for size, side in zip(feature_size, self.patch, strict=True))
        check(fits, "patch", self.patch, f"(height, width) that divide a map of {feature_size} cells")


class KeypointTokens(nn.Module):
    """Learned keypoint tokens that attend to the patches of a map, and to each other.

    Visual tokens have a fixed sine position, added after the embedding and again in front of every layer but the first
    of a stack; keypoint tokens have none.

    Args:
        layout: depth, heads and patches.
        channels: of the feature map.
        feature_size: (h, w) of the feature map.
        num_joints: J.

    Raises:
        InputError: the layout does not fit the map.
    """

    def __init__(
        self, layout: TokenLayout, channels: int, feature_size: tuple[int, int], num_joints: int
    ) -> None:
        super().__init__()
        layout.check_fits(feature_size)
        self.layout = layout
        rows, columns = (size // side for size, side in zip(feature_size, layout.patch, strict=True))
        self.keypoint_token = nn.Parameter(torch.zeros(1, num_joints, layout.width))
        # published files hold the table, and their parameter counts count it
        self.pos_embedding = nn.Parameter(sine_positions(rows, columns, layout.width), requires_grad=False)
        self.patch_to_embedding = nn.Linear(layout.patch[0] * layout.patch[1] * channels, layout.width)
        names = ["transformer"] if layout.stacks == 1 else _numbered("transformer", layout.stacks)
        for name in names:
            self.add_module(name, TokenStack(layout, layout.depth // layout.stacks))
        self._stacks = names

    def attend(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, h, w) -> keypoint tokens (B, J, stacks * width), and the last visual tokens (B, N, width)."""
        joints = self.keypoint_token.shape[1]
        visual = self.patch_to_embedding(patches(feature, self.layout.patch)) + self.pos_embedding
        tokens = torch.cat([self.keypoint_token.expand(feature.shape[0], -1, -1), visual], 1)
        ends = []
        for name in self._stacks:
            tokens = self.get_submodule(name)(tokens, self.pos_embedding)
            ends.append(tokens[:, :joints])
        return torch.cat(ends, -1), tokens[:, joints:]


class TokenStack(nn.Module):
    """Transformer layers that normalise before they compute."""

    def __init__(self, layout: TokenLayout, depth: int) -> None:
        super().__init__()
        width = layout.width
        self.layers = nn.ModuleList(
            nn.Sequential(
                _Residual(_Normalized(width, _Attention(width, layout.heads))),
                _Residual(_Normalized(width, _FeedForward(width, layout.expansion * width))),
            )
            for _ in range(depth)
        )

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, J + N, width) and the visual tokens' positions (1, N, width) -> tokens of the same shape."""
        keypoints = tokens.shape[1] - positions.shape[1]
        # keypoint tokens have no position
        positions = functional.pad(positions, (0, 0, keypoints, 0))
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens if index == 0 else tokens + positions)
        return tokens


class _Residual(nn.Module):
    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.fn = function

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


class _Normalized(nn.Module):
    def __init__(self, width: int, function: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        # (B, N, 3, heads, width / heads) -> three of (B, heads, N, width / heads)
        query, key, value = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # the published layers 2 and 4 are dropout of rate 0
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def initialize_tokens(network: nn.Module) -> None:
    """Draw fresh weights of the linear layers and keypoint tokens as published: normal of 0.02, cut at 2."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, KeypointTokens):
            nn.init.trunc_normal_(module.keypoint_token, std=0.02)


def patches(feature: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cut a map (B, C, h, w) into patches (B, N, rows * columns * C), row by row, channels side by side."""
    batch, channels, height, width = feature.shape
    rows, columns = patch
    cut = feature.reshape(batch, channels, height // rows, rows, width // columns, columns)
    count = (height // rows) * (width // columns)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, count, rows * columns * channels)


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of a grid's coordinates, (1, rows * columns, width): first those of y, then those of x.

    Coordinate i of n is (i + 1) / n * 2 pi, the frequencies fall from 1 to nearly 1 / 10000 (Vaswani et al.).

    Args:
        rows: of the grid.
        columns: of the grid.
        width: an even number of channels.
    """
    index = torch.arange(width // 2)
    divisor = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / (width // 2))
    sides = []
    for count in (rows, columns):
        coordinate = torch.arange(1, count + 1) / (count + 1e-6) * (2 * math.pi)
        angle = coordinate[:, None] / divisor  # (count, width / 2)
        sides.append(torch.where(index % 2 == 0, angle.sin(), angle.cos()))
    y = sides[0][:, None].expand(-1, columns, -1)
    x = sides[1][None].expand(rows, -1, -1)
    return torch.cat([y, x], -1).reshape(1, rows * columns, -1)


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}{number}" for number in range(1, count + 1)]
