"""TokenPose: sizes to the unit, targets, loss, decoding and the flip test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.methods import LabelLossOptions
from cdkd_ext.methods.tokenpose import TokenPoseCodec, TokenPoseHead, TokenPoseOutput
from cdkd_ext.methods.tokens import TokenLayout
from cdkd_ext.models import count_parameters, create_model, paper_gflops


@pytest.mark.parametrize(
    ("name", "head", "side", "joints", "parameters", "tensors", "gflops"),
    [
        ("hrnet_w32", "tokenpose_l", 32, 16, 30_898_176, 1826, 0.1518),
        ("hrnet_w32", "tokenpose_l", 64, 16, 31_011_264, 1826, 0.6021),
        ("hrnet_w32", "tokenpose_b", 32, 17, 33_095_232, 1892, 0.1559),
        ("hrnet_w48", "tokenpose_b", 64, 17, 68_243_104, 1892, 1.2365),
    ],
)
def test_the_rows_of_the_tables(
    name: str, head: str, side: int, joints: int, parameters: int, tensors: int, gflops: float
) -> None:
    with torch.device("meta"):
        network = create_model(name, input_size=(side, side), num_joints=joints, head=head)
    assert count_parameters(network) == parameters
    assert len(network.state_dict()) == tensors
    assert paper_gflops(network) == pytest.approx(gflops, abs=5.1e-5)


@pytest.mark.parametrize(
    ("stacks", "size", "widths"),
    [
        (1, (64, 48), [192, 384, 3072]),
        (1, (16, 16), [192, 256]),
        (1, (8, 8), [192, 64]),
        (3, (64, 48), [576, 3072]),
    ],
)
def test_a_hidden_layer_where_the_map_is_large(stacks: int, size: tuple[int, int], widths: list[int]) -> None:
    head = TokenPoseHead(TokenLayout(depth=stacks, stacks=stacks), 2, size, 3)
    linear = [layer for layer in head.mlp_head if isinstance(layer, torch.nn.Linear)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths


def test_depth_heads_and_patch_are_options() -> None:
    options = {"input_size": (64, 32), "num_joints": 3, "head": "tokenpose_b"}
    network = create_model("hrnet_w8_small", depth=2, heads=4, patch=2, **options)
    layout = network.transformer.layout
    assert (layout.depth, layout.heads, layout.patch) == (2, 4, (2, 2))
    assert network.transformer.pos_embedding.shape == (1, 8 * 4, 192)
    with pytest.raises(InputError, match=r"patch: expected .* a map of \(16, 8\) cells, got \(16, 16\)"):
        create_model("hrnet_w8_small", patch=16, **options)
    with pytest.raises(InputError, match="depth: expected a multiple of 3 stacks, got 4"):
        create_model("hrnet_w8_small", depth=4, **(options | {"head": "tokenpose_l"}))


def plain_loss(maps: torch.Tensor, keypoints: torch.Tensor, weights: torch.Tensor) -> float:
    """Half the mean squared difference from Gaussians of one cell on a 64x32 crop, number by number."""
    batch, joints, height, width = maps.shape
    total = 0.0
    for b in range(batch):
        for j in range(joints):
            x = float(keypoints[b, j, 0]) * (width - 1) / (32 - 1)
            y = float(keypoints[b, j, 1]) * (height - 1) / (64 - 1)
            weight = float(weights[b, j])
            for row in range(height):
                for column in range(width):
                    target = math.exp(-((column - x) ** 2 + (row - y) ** 2) / 2)
                    total += 0.5 * (weight * (float(maps[b, j, row, column]) - target)) ** 2
    return total / maps.numel()


def test_the_loss_against_plain_loops() -> None:
    torch.manual_seed(0)
    network = create_model("hrnet_w8_small", input_size=(64, 32), num_joints=3, head="tokenpose_b", depth=1)
    loss = network.spec.method.label_loss(network, LabelLossOptions(scale=3.0))
    maps = torch.randn(2, 3, 16, 8, dtype=torch.float64)
    keypoints = torch.rand(2, 3, 2, dtype=torch.float64) * torch.tensor([31.0, 63.0])
    weights = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 2.0]], dtype=torch.float64)
    expected = 3 * plain_loss(maps, keypoints, weights)
    keypoints[0, 2] = math.nan
    result = loss(TokenPoseOutput(maps), keypoints, weights)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_wrong_sigma_is_found_before_the_first_step(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma: expected a positive number of cells, or None, got"):
        TokenPoseCodec((64, 64), sigma)


def test_targets_are_decoded_to_the_keypoints() -> None:
    codec = TokenPoseCodec((256, 192), sigma=2.0)
    output = TokenPoseOutput(torch.zeros(1, 2, 64, 48, dtype=torch.float64))
    keypoints = torch.tensor([[[50.3, 100.2], [120.9, 33.3]]], dtype=torch.float64)
    targets, used = codec.targets(output, keypoints, torch.ones(1, 2, dtype=torch.float64))
    assert used.tolist() == [[1, 1]]
    decoded, scores = codec.decode(TokenPoseOutput(targets))
    torch.testing.assert_close(decoded, keypoints, atol=0.02, rtol=0)
    assert (scores > 0.9).all()


def test_the_outermost_cells_are_the_outermost_pixels() -> None:
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, 0, 0] = maps[0, 1, 7, 7] = 1
    keypoints, _ = TokenPoseCodec((32, 32)).decode(TokenPoseOutput(maps))
    assert keypoints.tolist() == [[[0, 0], [31, 31]]]


def test_the_flip_test_of_a_mirrored_network_changes_nothing() -> None:
    torch.manual_seed(0)
    codec, swap = TokenPoseCodec((64, 64)), torch.tensor([1, 0, 2])
    maps = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    moved = torch.tensor([[[0.0, 2.0, 3.0], [1.0, 0.0, 4.0]]]).expand(4, 2, 3)
    plain = codec.decode(TokenPoseOutput(maps), to_image=moved)
    mirrored = TokenPoseOutput(maps[:, swap].flip(-1))
    averaged = codec.decode(TokenPoseOutput(maps), flipped=(mirrored, swap), to_image=moved)
    for first, second in zip(plain, averaged, strict=True):
        assert torch.equal(first, second)
    x, _ = codec.decode(TokenPoseOutput(maps))[0].unbind(-1)
    back, _ = codec.decode(mirrored)[0][:, swap].unbind(-1)
    torch.testing.assert_close(63 - back, x)


@pytest.mark.long
def test_a_training_beats_a_constant_prediction(trained: Callable[..., Any]) -> None:
    """On few people: a map of 8x8 cells is blurred by eleven of them before it is decoded."""
    result = trained("tokenpose_b", depth=1, steps=100, people=4, rate=1e-3)
    assert result.last < 0.3 * result.first
    assert result.error < 0.9 * result.constant
