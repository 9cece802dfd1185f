"""Stacked hourglasses: sizes to the unit, what the layers compute, loss, decoding and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import InputError
from cdkd_ext.methods import LabelLossOptions
from cdkd_ext.methods.hourglass import Hourglass, HourglassOutput, PreActivation
from cdkd_ext.models import count_parameters, create_model, describe_models, paper_gflops
from cdkd_ext.training import DistillationTask


def randomise_norms(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_()


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "gflops"),
    [("hourglass_4", 13_018_816, 1298, 0.894), ("hourglass_8", 25_594_624, 2526, None)],
)
def test_published_sizes(name: str, parameters: int, tensors: int, gflops: float | None) -> None:
    with torch.device("meta"):
        network = create_model(name, input_size=(64, 64), num_joints=16, head="heatmap")
    assert count_parameters(network) == parameters
    assert len(network.state_dict()) == tensors
    assert gflops is None or paper_gflops(network) == pytest.approx(gflops, abs=5e-4)


def test_published_names() -> None:
    with torch.device("meta"):
        network = create_model("hourglass_4", input_size=(64, 64), num_joints=16, head="heatmap")
    names = set(network.state_dict())
    expected = {
        "conv1.bias", "layer1.0.downsample.0.weight", "layer3.0.conv3.weight", "hg.3.hg.0.3.0.bn1.weight",
        "hg.0.hg.3.2.0.conv2.bias", "res.3.0.conv1.weight", "fc.3.0.bias", "fc.3.1.running_var",
        "score.3.weight", "fc_.2.weight", "score_.2.bias",
    }  # fmt: skip
    assert expected <= names
    assert not {"hg.0.hg.1.3.0.bn1.weight", "fc_.3.weight", "layer3.0.downsample.0.weight"} & names


def before(x: Tensor, norm: nn.BatchNorm2d, convolution: nn.Conv2d, padding: int = 0) -> Tensor:
    """Norm by running statistics, ReLU, convolution."""
    mean, var, scale, shift = (
        value[:, None, None] for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    x = ((x - mean) / (var + 1e-5).sqrt() * scale + shift).relu()
    return functional.conv2d(x, convolution.weight, convolution.bias, padding=padding)


@pytest.mark.parametrize("channels", [4, 8])
def test_a_block_normalises_before_it_convolves(channels: int) -> None:
    torch.manual_seed(0)
    block = PreActivation(channels, 8).double().eval()
    randomise_norms(block)
    x = torch.randn(2, channels, 5, 3, dtype=torch.float64)
    out = before(x, block.bn1, block.conv1)
    out = before(out, block.bn2, block.conv2, padding=1)
    out = before(out, block.bn3, block.conv3)
    shortcut = (
        x if channels == 8 else functional.conv2d(x, block.downsample[0].weight, block.downsample[0].bias)
    )
    torch.testing.assert_close(block(x), out + shortcut)


def test_an_hourglass_by_its_levels() -> None:
    torch.manual_seed(0)
    hourglass = Hourglass(4).double().eval()
    randomise_norms(hourglass)
    x = torch.randn(1, 4, 16, 32, dtype=torch.float64)

    def level(index: int, x: Tensor) -> Tensor:
        blocks: Any = hourglass.hg[index]
        low = blocks[1](functional.max_pool2d(x, 2))
        low = blocks[3](low) if index == 0 else level(index - 1, low)
        return blocks[0](x) + blocks[2](low).repeat_interleave(2, -1).repeat_interleave(2, -2)

    torch.testing.assert_close(hourglass(x), level(3, x))


def test_each_hourglass_adds_to_what_the_next_one_sees() -> None:
    torch.manual_seed(0)
    network = create_model("hourglass_4_w32", input_size=(64, 64), num_joints=3, head="heatmap").eval()
    x = torch.randn(2, 32, 16, 16)
    output = network.spec.method.read(network, x)
    for index in range(4):
        y = network.fc[index](network.res[index](network.hg[index](x)))
        heatmaps = network.score[index](y)
        torch.testing.assert_close(output.maps[index], heatmaps)
        if index < 3:
            x = x + network.fc_[index](y) + network.score_[index](heatmaps)
    assert torch.equal(output.heatmaps, output.maps[-1])


def squared_error(maps: Tensor, keypoints: Tensor, weights: Tensor) -> float:
    """Half the mean squared difference from Gaussians around the nearest cells of a 64x64 crop, number by number."""
    batch, joints, height, width = maps.shape
    total = 0.0
    for b in range(batch):
        for j in range(joints):
            column, row = (int(float(value) / 4 + 0.5) for value in keypoints[b, j])
            for v in range(height):
                for u in range(width):
                    near = abs(u - column) <= 3 and abs(v - row) <= 3
                    target = math.exp(-((u - column) ** 2 + (v - row) ** 2) / 2) if near else 0.0
                    total += 0.5 * (float(weights[b, j]) * (float(maps[b, j, v, u]) - target)) ** 2
    return total / maps.numel()


def test_the_loss_against_plain_loops() -> None:
    torch.manual_seed(0)
    network = create_model("hourglass_4_w32", input_size=(64, 64), num_joints=2, head="heatmap")
    loss = network.spec.method.label_loss(network, LabelLossOptions(scale=2.0))
    maps = torch.randn(4, 2, 2, 16, 16, dtype=torch.float64)
    keypoints = torch.rand(2, 2, 2, dtype=torch.float64) * 50 + 5
    weights = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    expected = 2 * sum(squared_error(each, keypoints, weights) for each in maps)
    keypoints[1, 0] = math.nan
    result = loss(HourglassOutput(maps), keypoints, weights)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


def test_the_last_heatmaps_are_decoded() -> None:
    network = create_model("hourglass_4_w32", input_size=(64, 64), num_joints=2, head="heatmap")
    maps = torch.zeros(4, 1, 2, 16, 16)
    maps[3, 0, 0, 5, 7] = maps[3, 0, 1, 2, 3] = 1.0
    maps[2, 0, :, 9, 9] = 9.0
    keypoints, scores = codec_for(network.spec).decode(HourglassOutput(maps))
    assert keypoints.tolist() == [[[28.0, 20.0], [12.0, 8.0]]]
    assert scores.tolist() == [[1.0, 1.0]]


def test_a_batch_of_another_size_than_the_number_of_maps_is_trained() -> None:
    network = create_model("hourglass_4_w32", input_size=(64, 64), num_joints=3, head="heatmap")
    task = DistillationTask(network)
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    losses = task(images, None, torch.rand(3, 3, 2) * 63, torch.ones(3, 3))
    losses["total"].backward()
    assert losses.keys() == {"total", "hourglass"}
    assert all(parameter.grad is not None for parameter in task.parameters())


@pytest.mark.long
def test_training(learnt_by_heart: Callable[..., Any]) -> None:
    result = learnt_by_heart("hourglass_4_w32", steps=100, planned=100)
    assert result.losses[-1] < 0.2 * result.losses[0]
    assert result.error < 0.9 * result.constant


@pytest.mark.parametrize("name", ["hourglass_4", "hourglass_8", "okdhp_4"])
def test_small_crops_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"input_size: .* multiples of 64: {name} halves a map .* four times"
    ):
        create_model(name, input_size=(32, 32), num_joints=16, head="heatmap")
    stem = {"stem_stride": 2, "num_joints": 2, "head": "heatmap"}
    assert create_model("hourglass_4_w32", input_size=(32, 64), **stem).feature_size == (16, 32)


def test_other_heads_are_refused() -> None:
    with pytest.raises(InputError, match="head: expected another for hourglass_4"):
        create_model("hourglass_4", input_size=(64, 64), num_joints=16)


def test_networks_that_do_not_take_a_crop_are_not_listed() -> None:
    large, small = (
        {spec.name for spec in describe_models(input_size=(side, side), num_joints=16, head="heatmap")}
        for side in (64, 32)
    )
    assert large - small == {
        "hourglass_4", "hourglass_4_w32", "hourglass_8", "okdhp_4", "okdhp_4_w32",
    }  # fmt: skip


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_wrong_sigma_is_found_before_the_first_step(sigma: float) -> None:
    network = create_model("hourglass_4_w32", input_size=(64, 64), num_joints=3, head="heatmap")
    with pytest.raises(InputError, match="sigma: expected a positive number of cells, or None, got"):
        network.spec.method.label_loss(network, LabelLossOptions(heatmap_sigma=sigma))
