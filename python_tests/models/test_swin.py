"""Swin Transformer V2: the published names, and attention cell by cell."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cdkd_ext.errors import InputError
from cdkd_ext.models import count_parameters, create_model, inference_copy
from cdkd_ext.models.swin import (
    WindowAttention,
    merge_windows,
    pair_indices,
    relative_positions,
    separations,
    split_windows,
)


def test_published_sizes_and_names() -> None:
    with torch.device("meta"):
        network = create_model("swin_v2_base", input_size=(64, 64), num_joints=17, head="pct")
    shapes = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if name.split(".")[0] not in network.head_parts
    }
    parameters = sum(math.prod(shapes[name]) for name, _ in network.named_parameters() if name in shapes)
    assert parameters == 86_893_816
    assert len(shapes) == 471
    expected = {
        "patch_embed.proj.weight": (128, 3, 4, 4), "patch_embed.norm.bias": (128,),
        "layers.0.blocks.1.attn.logit_scale": (4, 1, 1), "layers.1.blocks.0.attn.q_bias": (256,),
        "layers.1.blocks.0.attn.v_bias": (256,), "layers.2.blocks.17.attn.relative_coords_table": (1, 31, 31, 2),
        "layers.3.blocks.1.attn.relative_position_index": (64, 64), "layers.2.blocks.3.attn.rpe_mlp.0.weight": (512, 2),
        "layers.2.blocks.3.attn.rpe_mlp.2.weight": (16, 512), "layers.0.blocks.0.attn.qkv.weight": (384, 128),
        "layers.0.blocks.0.attn.proj.bias": (128,), "layers.3.blocks.0.mlp.fc1.weight": (4096, 1024),
        "layers.3.blocks.0.mlp.fc2.weight": (1024, 4096), "layers.0.downsample.reduction.weight": (256, 512),
        "layers.2.downsample.norm.weight": (1024,), "norm3.weight": (1024,), "layers.3.blocks.1.norm2.bias": (1024,),
    }  # fmt: skip
    assert {name: shapes.get(name) for name in expected} == expected


def test_windows_are_cut_row_by_row_and_put_together_again() -> None:
    x = torch.arange(2 * 4 * 6 * 3).view(2, 4, 6, 3)
    windows = split_windows(x, 2)
    assert windows.shape == (12, 4, 3)
    assert torch.equal(windows[1], torch.stack([x[0, 0, 2], x[0, 0, 3], x[0, 1, 2], x[0, 1, 3]]))
    assert torch.equal(windows[3], torch.stack([x[0, 2, 0], x[0, 2, 1], x[0, 3, 0], x[0, 3, 1]]))
    assert torch.equal(merge_windows(windows, 2, (4, 6)), x)


def bias_of(attention: WindowAttention, dy: int, dx: int, pretrained: int) -> Tensor:
    """The position bias (heads,) between two cells, from their distance."""
    spaced = [math.copysign(math.log2(1 + abs(d / (pretrained - 1) * 8)) / math.log2(8), d) for d in (dy, dx)]
    first, last = attention.rpe_mlp[0], attention.rpe_mlp[2]
    hidden = (first.weight @ torch.tensor(spaced, dtype=first.weight.dtype) + first.bias).relu()
    return 16 * torch.sigmoid(last.weight @ hidden)


def attention_by_cell(attention: WindowAttention, x: Tensor, shift: int, pretrained: int) -> Tensor:
    """What a block's attention gives for a map (h, w, C), one cell after the other, on the padded, unrolled map."""
    side, heads = attention.window, attention.heads
    height, width, channels = x.shape
    rows, columns = (math.ceil(size / side) * side for size in (height, width))
    padded = functional.pad(x, (0, 0, 0, columns - width, 0, rows - height))
    bias = torch.cat([attention.q_bias, torch.zeros(channels, dtype=x.dtype), attention.v_bias])
    joined = (padded @ attention.qkv.weight.T + bias).view(rows, columns, 3, heads, channels // heads)
    query, key, value = joined.unbind(2)
    scale = attention.logit_scale.clamp(max=math.log(100.0)).exp().flatten()

    def window_of(row: int, column: int) -> tuple[int, ...]:
        """The window after rolling by the shift, and on which side of the border that was rolled in."""
        rolled = (row - shift) % rows, (column - shift) % columns
        wrapped = row < shift, column < shift
        return rolled[0] // side, rolled[1] // side, *wrapped

    cells = [(row, column) for row in range(rows) for column in range(columns)]
    result = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            own = [cell for cell in cells if window_of(*cell) == window_of(row, column)]
            near = torch.stack(
                [
                    functional.cosine_similarity(query[row, column], key[cell], dim=-1) * scale
                    + bias_of(attention, row - cell[0], column - cell[1], pretrained)
                    for cell in own
                ]
            )
            weights = near.softmax(0)
            seen = sum(w[:, None] * value[cell] for w, cell in zip(weights, own, strict=True))
            result[row, column] = seen.flatten() @ attention.proj.weight.T + attention.proj.bias
    return result


@pytest.mark.parametrize(("size", "shift"), [((4, 4), 0), ((3, 4), 0), ((8, 8), 2), ((3, 6), 2), ((2, 2), 2)])
@torch.no_grad()
def test_attention_cell_by_cell(size: tuple[int, int], shift: int) -> None:
    """Cells attend inside their window, padding included; cells that rolling brought together do not."""
    torch.manual_seed(0)
    attention = WindowAttention(width=6, heads=2, window=4, pretrained_window=3).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    attention.logit_scale[1] = 9.0
    attention.relative_coords_table.copy_(relative_positions(4, 3))
    x = torch.randn(1, *size, 6, dtype=torch.float64)
    padded = functional.pad(x, (0, 0, 0, -size[1] % 4, 0, -size[0] % 4))
    whole = (padded.shape[1], padded.shape[2])
    windows = split_windows(padded.roll((-shift, -shift), (1, 2)), 4)
    apart = separations(whole, 4, shift).double() if shift else None
    found = merge_windows(attention(windows, apart), 4, whole).roll((shift, shift), (1, 2))
    expected = attention_by_cell(attention, x[0], shift, 3)
    torch.testing.assert_close(found[0, : size[0], : size[1]], expected, atol=1e-6, rtol=1e-6)


def test_a_pair_of_cells_finds_its_difference_in_the_table() -> None:
    table, index = relative_positions(3, 3).flatten(0, 2), pair_indices(3)
    for first in range(9):
        for second in range(9):
            y, x = table[index[first, second]]
            assert math.copysign(1, y) == math.copysign(1, first // 3 - second // 3) or y == 0
            assert (x > 0) == (first % 3 > second % 3)


def test_other_methods_get_a_map_of_stride_four() -> None:
    network = create_model("swin_v2_w16", input_size=(64, 32), num_joints=3, head="heatmap")
    output = network(torch.zeros(2, 3, 64, 32, dtype=torch.uint8))
    assert output.heatmaps.shape == (2, 3, 16, 8)
    output.heatmaps.square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []
    assert count_parameters(network) > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
@pytest.mark.parametrize(("head", "size"), [("pct", (32, 32)), ("heatmap", (64, 32))])
@torch.no_grad()
def test_16_bit_floats(head: str, size: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    network = create_model("swin_v2_w16", input_size=size, num_joints=3, head=head).eval()
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    for value, wanted in zip(inference_copy(network, dtype)(images), network(images), strict=True):
        assert value.dtype == torch.float32
        assert (value - wanted).norm() < tolerance * wanted.norm()
    assert all(value.isfinite().all() for value in network.to(dtype)(images))


def test_refusals() -> None:
    with pytest.raises(InputError, match="stem_stride: expected 4 or None for swin_v2_w16, got 2"):
        create_model("swin_v2_w16", input_size=(64, 64), num_joints=3, stem_stride=2)
    with pytest.raises(
        InputError, match=r"input_size: expected height and width .* multiples of 32 for swin_v2_w16"
    ):
        create_model("swin_v2_w16", input_size=(48, 48), num_joints=3)
