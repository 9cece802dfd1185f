"""Swin Transformer V2 (Liu et al.) as PCT runs it, with the published tensor names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.blocks import no_autocast, upsampling
from cdkd_ext.errors import check
from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.spec import ModelSpec

_BIAS_WIDTH = 512
_LARGEST_BIAS = 16.0
_LARGEST_SCALE = math.log(100.0)
_APART = -100.0
_UPSAMPLING = (256, 256, 256)


@dataclass(frozen=True)
class SwinLayout:
    """The shape of a Swin Transformer V2; the defaults are those of the base size, as PCT sets it.

    Attributes:
        width: channels of the first stage; each later one has twice as many.
        depths: blocks of the stages.
        heads: of the stages' attention.
        windows: sides of the stages' windows in cells.
        pretrained_windows: sides that the position biases were learned for.
        shifts: whether every second block of a stage moves its windows by half a side.
    """

    width: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    windows: tuple[int, ...] = (16, 16, 16, 8)
    pretrained_windows: tuple[int, ...] = (12, 12, 12, 6)
    shifts: tuple[bool, ...] = (True, True, False, False)

    @property
    def channels(self) -> int:
        """Channels of the last stage."""
        return self.width * 2 ** (len(self.depths) - 1)


class Swin(PoseNetwork):
    """Four stages of attention inside windows, each at half the resolution of the one before.

    A map that is smaller than its window is padded with zeros that take part in the attention, as published: a 64x64
    image is a map of 4x4 in windows of 16x16 in the third stage, where 94 % of what a cell attends to is padding.

    PCT reads the last map, of stride 32. Every other method gets it through three transposed convolutions, at stride 4,
    as in the heatmap network that PCT's backbone is taken from.

    Input sizes are multiples of 32. See `PoseNetwork` for the arguments and the result.
    """

    def __init__(self, layout: SwinLayout, spec: ModelSpec) -> None:
        doublings = () if spec.head == "pct" else _UPSAMPLING
        stride = 4 * 2 ** (len(layout.depths) - 1)
        super().__init__(spec, feature_stride=stride // 2 ** len(doublings), size_multiple=stride)
        check(spec.own_stem_stride == 4, "stem_stride", spec.stem_stride, f"4 or None for {spec.name}")
        self.patch_embed = _PatchEmbedding(layout.width)
        last = len(layout.depths) - 1
        self.layers = nn.Sequential(*(_Stage(layout, stage, last=stage == last) for stage in range(last + 1)))
        # the published name counts stages from 0
        self.norm3 = _norm(layout.channels)
        channels = layout.channels
        if doublings:
            self.deconv_layers = upsampling(channels, doublings)
            channels = doublings[-1]
        self.add_head(channels)
        for part in (self.patch_embed, self.layers):
            _draw(part)

    def features(self, images: Tensor) -> Tensor:
        """The last map in front of the head: of stride 32 for PCT, else of 4."""
        x = self.norm3(self.layers(self.patch_embed(images))).permute(0, 3, 1, 2)
        return x if self.spec.head == "pct" else self.deconv_layers(x)


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)
        self.norm = _norm(width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / 4, W / 4, width), channels last as in all that follows."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class _Stage(nn.Module):
    """Blocks of one resolution, then half of it with twice the channels, but not after the last stage."""

    def __init__(self, layout: SwinLayout, stage: int, *, last: bool) -> None:
        super().__init__()
        width = layout.width * 2**stage
        window = layout.windows[stage]
        self.blocks = nn.Sequential(
            *(
                _Block(
                    width,
                    layout.heads[stage],
                    window,
                    layout.pretrained_windows[stage],
                    shift=window // 2 if layout.shifts[stage] and index % 2 else 0,
                )
                for index in range(layout.depths[stage])
            )
        )
        self.downsample = nn.Identity() if last else _Merging(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) -> (B, h / 2, w / 2, 2 * width), or the same shape in the last stage."""
        return self.downsample(self.blocks(x))


class _Merging(nn.Module):
    """Four neighbours become one cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = _norm(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        # down the columns first: (0, 0), (1, 0), (0, 1), (1, 1)
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.norm(self.reduction(torch.cat(corners, -1)))


class _Block(nn.Module):
    """Attention and two linear layers, each normalised before it is added."""

    def __init__(self, width: int, heads: int, window: int, pretrained_window: int, *, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.attn = WindowAttention(width, heads, window, pretrained_window)
        self.norm1 = _norm(width)
        self.mlp = _FeedForward(width)
        self.norm2 = _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) -> the same shape."""
        x = x + self.norm1(self._attended(x))
        return x + self.norm2(self.mlp(x))

    def _attended(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        side, shift = self.attn.window, self.shift
        padded = functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        size = (padded.shape[1], padded.shape[2])
        apart = None
        if shift:
            padded = padded.roll((-shift, -shift), (1, 2))
            apart = separations(size, side, shift).to(x)
        attended = merge_windows(self.attn(split_windows(padded, side), apart), side, size)
        if shift:
            attended = attended.roll((shift, shift), (1, 2))
        return attended[:, :height, :width]


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """Scaled cosine attention inside windows, with a bias that a small network computes from relative positions.

    Args:
        width: channels.
        heads: of the attention.
        window: side in cells.
        pretrained_window: side that the bias was learned for; relative positions are measured in it.

    Attributes:
        window: the side.
    """

    relative_coords_table: Tensor
    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int, pretrained_window: int) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.rpe_mlp = nn.Sequential(
            nn.Linear(2, _BIAS_WIDTH), nn.ReLU(inplace=True), FloatLinear(_BIAS_WIDTH, heads, bias=False)
        )
        self.register_buffer("relative_coords_table", relative_positions(window, pretrained_window))
        self.register_buffer("relative_position_index", pair_indices(window))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.softmax = nn.Softmax(-1)

    def forward(self, windows: Tensor, apart: Tensor | None = None) -> Tensor:
        """Attend inside each window.

        Args:
            windows: (B * W, window**2, width).
            apart: (W, window**2, window**2) to add to the logits of pairs of cells; None adds nothing.

        Returns:
            (B * W, window**2, width).
        """
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        joined = functional.linear(windows, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # (B * W, heads, window**2, width / heads)
        scale = self.logit_scale.clamp(max=_LARGEST_SCALE).exp()
        logits = _normalized(query) @ _normalized(key).mT * scale
        logits = logits + self.position_bias()
        if apart is not None:
            logits = (logits.unflatten(0, (-1, len(apart))) + apart[:, None]).flatten(0, 1)
        attended = self.softmax(logits).to(value.dtype) @ value
        return self.proj(attended.transpose(1, 2).flatten(2))

    def position_bias(self) -> Tensor:
        """(heads, window**2, window**2), between 0 and 16."""
        table = self.rpe_mlp(self.relative_coords_table).flatten(0, 2)  # ((2 * window - 1)**2, heads)
        return _LARGEST_BIAS * table[self.relative_position_index].sigmoid().permute(2, 0, 1)


def relative_positions(window: int, pretrained_window: int) -> Tensor:
    """Differences of the cells of a window, (1, 2 * window - 1, 2 * window - 1, 2) as (y, x), on a logarithmic scale.

    A difference of a whole pretrained window is 8, and d becomes sign(d) * log2(1 + |d|) / log2(8).
    """
    difference = torch.arange(1 - window, window) / (pretrained_window - 1) * 8
    spaced = difference.sign() * torch.log2(1 + difference.abs()) / 3
    return torch.stack(torch.meshgrid(spaced, spaced, indexing="ij"), -1)[None]


def pair_indices(window: int) -> Tensor:
    """The row of the table of relative positions of each pair of a window's cells, (window**2, window**2) int64."""
    cell = torch.arange(window**2)
    y, x = torch.div(cell, window, rounding_mode="floor"), cell % window
    return (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1


def separations(size: tuple[int, int], window: int, shift: int) -> Tensor:
    """What to add to the logits of a shifted map's windows, (W, window**2, window**2).

    Rolling a map brings its opposite borders together: -100 for pairs of cells that were no neighbours, else 0.

    Args:
        size: (h, w) of the map, multiples of the window.
        window: side in cells.
        shift: by how many cells the map was rolled.
    """
    parts = []
    for count in size:
        cell = torch.arange(count)
        parts.append((cell >= count - window).int() + (cell >= count - shift).int())
    part = 3 * parts[0][:, None] + parts[1]
    windows = split_windows(part[None, :, :, None], window)[..., 0]
    return torch.where(windows[:, None] == windows[:, :, None], 0.0, _APART)


def split_windows(x: Tensor, window: int) -> Tensor:
    """(B, h, w, C) -> (B * W, window**2, C), the windows row by row."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // window, window, width // window, window, channels)
    return cut.transpose(2, 3).reshape(-1, window**2, channels)


def merge_windows(windows: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `split_windows`, to maps (B, h, w, C) of `size`."""
    height, width = size
    cut = windows.reshape(-1, height // window, width // window, window, window, windows.shape[-1])
    return cut.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def _draw(module: nn.Module) -> None:
    """Draw fresh weights: normal of 0.02, cut at 2, and no bias."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class FloatNorm(nn.LayerNorm):
    """A layer norm in float32 at least, whatever type surrounds it."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape and type."""
        weight, bias = _float(self.weight), _float(self.bias)
        return functional.layer_norm(_float(x), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class FloatLinear(nn.Linear):
    """A linear layer without bias in float32 at least, whatever type surrounds it."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        with no_autocast(x):
            return functional.linear(_float(x), _float(self.weight))


def _float(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _normalized(vectors: Tensor) -> Tensor:
    """The vectors divided by their norms; those of norm 0, the empty cells of a padded map, stay 0 in float16, too."""
    return functional.normalize(_float(vectors), dim=-1).to(vectors.dtype)


def _norm(width: int) -> FloatNorm:
    return FloatNorm(width, eps=1e-6)
