"""Keypoint tokens against their formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.errors import InputError
from cdkd_ext.methods.tokens import KeypointTokens, TokenLayout, patches, sine_positions

SMALL = TokenLayout(depth=4, heads=2, patch=(2, 1), stacks=2, width=8, expansion=2)


def small_tokens(layout: TokenLayout = SMALL) -> KeypointTokens:
    torch.manual_seed(0)
    module = KeypointTokens(layout, channels=3, feature_size=(4, 2), num_joints=2).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def test_positions_by_their_formula() -> None:
    rows, columns, width = 3, 2, 12
    table = sine_positions(rows, columns, width)[0]
    for row in range(rows):
        for column in range(columns):
            expected = []
            for index, count in ((row, rows), (column, columns)):
                for k in range(width // 2):
                    angle = (index + 1) / (count + 1e-6) * 2 * math.pi
                    angle /= 10000 ** (2 * (k // 2) / (width // 2))
                    expected.append(math.cos(angle) if k % 2 else math.sin(angle))
            torch.testing.assert_close(table[row * columns + column], torch.tensor(expected))


def test_a_patch_is_read_row_by_row_with_channels_side_by_side() -> None:
    feature = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)
    cut = patches(feature, (2, 3))
    assert cut.shape == (1, 4, 12)
    # the second patch of the first row: rows 0 and 1, columns 3 to 5
    expected = [int(feature[0, c, row, column]) for row in (0, 1) for column in (3, 4, 5) for c in (0, 1)]
    assert cut[0, 1].tolist() == expected


def attention(x: Tensor, qkv: Tensor, out: nn.Linear, heads: int) -> Tensor:
    """Scaled dot-product attention of one sample (N, width), head by head."""
    query, key, value = (x @ qkv.T).chunk(3, -1)
    size = x.shape[-1] // heads
    results = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        results.append(scores.softmax(-1) @ value[:, part])
    return torch.cat(results, -1) @ out.weight.T + out.bias


def test_tokens_by_their_formula() -> None:
    """Positions are added once after the embedding, and before every layer but the first of a stack."""
    module = small_tokens()
    feature = torch.randn(1, 3, 4, 2, dtype=torch.float64)
    positions = module.pos_embedding[0]
    visual = module.patch_to_embedding(patches(feature, (2, 1)))[0] + positions
    tokens = torch.cat([module.keypoint_token[0], visual])
    ends = []
    for stack in ("transformer1", "transformer2"):
        for index, layer in enumerate(module.get_submodule(stack).layers):
            if index:
                tokens = torch.cat([tokens[:2], tokens[2:] + positions])
            attend, forward = layer[0].fn, layer[1].fn
            normed = attend.norm(tokens)
            tokens = tokens + attention(normed, attend.fn.to_qkv.weight, attend.fn.to_out[0], 2)
            first, last = forward.fn.net[0], forward.fn.net[3]
            tokens = tokens + last(functional.gelu(first(forward.norm(tokens))))
        ends.append(tokens[:2])
    keypoints, last_visual = module.attend(feature)
    torch.testing.assert_close(keypoints[0], torch.cat(ends, -1))
    torch.testing.assert_close(last_visual[0], tokens[2:])


def test_one_stack_has_the_name_without_a_number() -> None:
    assert hasattr(small_tokens(replace(SMALL, stacks=1)), "transformer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "depth: expected a multiple of 2 stacks, got 3"),
        ({"depth": 0}, "depth: expected a positive number of layers, got 0"),
        ({"heads": 3}, "heads: expected a divisor of 8 channels, got 3"),
        ({"patch": (3, 1)}, r"patch: expected .* divide a map of \(4, 2\) cells, got \(3, 1\)"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_tokens(replace(SMALL, **change))  # type: ignore[arg-type]
