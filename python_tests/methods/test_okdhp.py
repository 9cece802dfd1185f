"""OKDHP: sizes to the unit, ensemble, the branches' own distillation, and the branch that remains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import InputError
from cdkd_ext.methods import LabelLossOptions
from cdkd_ext.methods.heatmap import HeatmapCodec, HeatmapLoss, HeatmapOutput
from cdkd_ext.methods.heatmaps import heatmap_targets
from cdkd_ext.methods.okdhp import OKDHPLoss, OKDHPOutput
from cdkd_ext.models import PoseNetwork, count_parameters, create_model, extract_branch, paper_gflops


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    torch.manual_seed(0)
    return create_model("okdhp_4_w32", input_size=(64, 64), num_joints=3, head="heatmap").eval()


def test_the_row_of_the_table() -> None:
    with torch.device("meta"):
        network = create_model("okdhp_4", input_size=(64, 64), num_joints=16, head="heatmap")
    assert count_parameters(network) == 30_915_696
    assert len(network.state_dict()) == 2547
    assert paper_gflops(network) == pytest.approx(2.8990, abs=5e-5)
    expected = {
        "conv1.bias", "layer2.0.conv1.weight", "convs.2.0.weight", "convs.0.1.bias", "fc.weight", "fcs.2.bias",
        "ind_s_1.0.hg.0.3.0.bn3.weight", "ind_s_0.1.0.conv2.bias", "ind_s_0.2.1.running_mean", "score_s_1.weight",
        "_fc_s_1.weight", "_score_s_0.bias", "ind_b_2_s_1.2.0.weight", "score_b_0_s_1.bias", "_fc_b_1_s_0.weight",
        "_score_b_2_s_0.weight",
    }  # fmt: skip
    assert expected <= set(network.state_dict())
    assert "_fc_b_0_s_1.weight" not in network.state_dict()


@torch.no_grad()
def test_the_ensemble_is_of_the_branches_ends(network: PoseNetwork) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    output = network(images)
    assert output.maps.shape == (8, 2, 3, 16, 16) and output.attention.shape == (2, 3, 3)
    torch.testing.assert_close(output.attention.sum(1), torch.ones(2, 3))
    expected = sum(
        output.attention[:, branch, :, None, None] * output.maps[index]
        for branch, index in enumerate((3, 5, 7))
    )
    torch.testing.assert_close(output.ensemble, expected)


@torch.no_grad()
def test_attention_by_its_formula(network: PoseNetwork) -> None:
    feature = torch.randn(2, 32, 16, 16)
    seen = sum(convolution(feature) for convolution in network.convs)
    squeezed = seen.mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    logits = torch.stack([layer(squeezed) for layer in network.fcs])
    expected = logits.exp() / logits.exp().sum(0)
    attention = network.spec.method.read(network, feature).attention
    torch.testing.assert_close(attention, expected.transpose(0, 1))


@torch.no_grad()
def test_a_branch_is_a_plain_network(network: PoseNetwork) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    maps = network(images).maps
    for branch in range(3):
        plain = extract_branch(network, branch)
        assert plain.name == "hourglass_4_w32" and not plain.training
        torch.testing.assert_close(plain(images).maps, maps[[0, 1, 2 + 2 * branch, 3 + 2 * branch]])


def test_a_branch_has_the_type_of_its_network(network: PoseNetwork) -> None:
    plain = extract_branch(copy.deepcopy(network).double(), 1)
    assert {value.dtype for value in plain.parameters()} == {torch.float64}
    assert torch.equal(plain.conv1.weight, network.conv1.weight.double())


def test_no_such_branch(network: PoseNetwork) -> None:
    with pytest.raises(InputError, match="branch: expected 0 to 2, got 3"):
        extract_branch(network, 3)
    plain = create_model("hourglass_4_w32", input_size=(64, 64), num_joints=3, head="heatmap")
    with pytest.raises(
        InputError, match="network: expected one of okdhp_4, okdhp_4_w32, got hourglass_4_w32"
    ):
        extract_branch(plain, 0)


def divergence(student: Tensor, teacher: Tensor, weights: Tensor) -> float:
    """KL(softmax(w t) || softmax(w s)) over the cells, summed over joints, per sample and cell, number by number."""
    batch, joints, height, width = student.shape
    total = 0.0
    for b in range(batch):
        for j in range(joints):
            weight = float(weights[b, j])
            rows = [[weight * float(value) for value in maps[b, j].flatten()] for maps in (teacher, student)]
            sums = [sum(math.exp(value) for value in row) for row in rows]
            for target, own in zip(*rows, strict=True):
                p, q = math.exp(target) / sums[0], math.exp(own) / sums[1]
                total += p * math.log(p / q)
    return total / (batch * height * width)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.6, 1.0])
def test_the_loss_against_plain_loops(progress: float) -> None:
    torch.manual_seed(0)
    maps = torch.randn(8, 2, 2, 16, 16, dtype=torch.float64)
    ensemble = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    output = OKDHPOutput(maps, torch.zeros(2, 3, 2, dtype=torch.float64), ensemble)
    keypoints = torch.rand(2, 2, 2, dtype=torch.float64) * 50 + 5
    weights = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    against = HeatmapLoss((64, 64))
    labels = [against(HeatmapOutput(each), keypoints, weights) for each in (*maps, ensemble)]
    taught = sum(divergence(each, ensemble, weights) for each in maps)
    rise = math.exp(-5 * (1 - min(progress / 0.6, 1)) ** 2)
    result = OKDHPLoss(HeatmapCodec((64, 64)), scale=3.0)(output, keypoints, weights, progress)
    torch.testing.assert_close(result, 3 * (torch.stack(labels).sum() + 2 * rise * taught))


def test_joints_outside_the_map_teach_nothing() -> None:
    torch.manual_seed(0)
    maps, ensemble = torch.randn(8, 2, 2, 16, 16), torch.randn(2, 2, 16, 16)
    output = OKDHPOutput(maps, torch.zeros(2, 3, 2), ensemble)
    keypoints = 50 * torch.rand(2, 2, 2)
    keypoints[:, 1] = 500.0
    loss = OKDHPLoss(HeatmapCodec((64, 64)))
    found = loss(output, keypoints, torch.ones(2, 2), 1.0)
    assert found > 0
    torch.testing.assert_close(found, loss(output, keypoints, torch.tensor([[1.0, 0.0]]).repeat(2, 1), 1.0))


def test_the_ensemble_learns_from_the_divergence() -> None:
    maps = torch.randn(8, 1, 2, 16, 16, requires_grad=True)
    ensemble = torch.randn(1, 2, 16, 16, requires_grad=True)
    output = OKDHPOutput(maps, torch.full((1, 3, 2), 1 / 3), ensemble)
    loss = OKDHPLoss(HeatmapCodec((64, 64)), ensemble_weight=0.0)
    loss(output, torch.rand(1, 2, 2) * 63, torch.ones(1, 2), 1.0).backward()
    assert ensemble.grad is not None and ensemble.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "change", [{"ensemble_weight": -1}, {"distillation_weight": -1}, {"ramp": 0}, {"scale": 0}]
)
def test_numbers_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        OKDHPLoss(HeatmapCodec((64, 64)), **change)


def test_the_flip_test_of_a_mirrored_network_averages_the_ensemble(network: PoseNetwork) -> None:
    codec, swap = codec_for(network.spec), torch.tensor([1, 0, 2])
    assert codec == HeatmapCodec((64, 64), "quarter")
    points = torch.tensor([[[21.3, 28.9], [33.1, 13.3], [41.2, 49.1]]])
    across = torch.stack([63 - points[:, swap, 0], points[:, swap, 1]], -1)
    maps, mirrored = (
        heatmap_targets(at, torch.ones(1, 3), (64, 64), (16, 16), 2.0, quantized=False)[0]
        for at in (points, across)
    )

    def output(ensemble: Tensor) -> OKDHPOutput:
        return OKDHPOutput(ensemble[None].expand(8, -1, -1, -1, -1), torch.zeros(1, 3, 3), ensemble)

    plain = codec.decode(output(maps))
    averaged = codec.decode(output(maps), flipped=(output(mirrored), swap))
    assert torch.equal(plain[0], averaged[0])
    torch.testing.assert_close(plain[1], averaged[1], atol=0.05, rtol=0)


@pytest.mark.long
def test_training(learnt_by_heart: Callable[..., Any]) -> None:
    result = learnt_by_heart("okdhp_4_w32", steps=80, planned=80)
    assert result.losses[-1] < 0.2 * result.losses[0]
    assert result.error < 0.9 * result.constant


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_wrong_sigma_is_found_before_the_first_step(network: PoseNetwork, sigma: float) -> None:
    with pytest.raises(InputError, match="sigma: expected a positive number of cells, or None, got"):
        network.spec.method.label_loss(network, LabelLossOptions(heatmap_sigma=sigma))


def test_options(network: PoseNetwork) -> None:
    loss = network.spec.method.label_loss(network, LabelLossOptions(scale=2.0, heatmap_sigma=1.5))
    assert loss.codec == HeatmapCodec((64, 64), "quarter", 1.5) and loss.scale == 2
