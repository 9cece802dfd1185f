"""The loss of heatmap networks: the published reduction, and what has no loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.codecs import heatmap_targets
from cdkd_ext.distillation import CCA, SAPE, DistillationLoss, HeatmapLoss, SimCCLoss
from cdkd_ext.errors import InputError
from cdkd_ext.models import HeatmapOutput


def student(batch: int = 3, joints: int = 2, size: tuple[int, int] = (8, 6)) -> HeatmapOutput:
    torch.manual_seed(0)
    return HeatmapOutput(torch.randn(batch, joints, *size, dtype=torch.float64, requires_grad=True))


def labels(batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    keypoints = torch.rand(batch, 2, 2, dtype=torch.float64) * 20
    return keypoints, torch.ones(batch, 2, dtype=torch.float64), torch.ones(batch, dtype=torch.float64)


def test_the_published_reduction_joint_by_joint() -> None:
    """Per joint half the mean over samples and cells of (w·p - w·t)², then the mean over joints."""
    output = student()
    keypoints, _, _ = labels()
    weights = torch.tensor([[1, 0], [0.5, 1], [1, 1]], dtype=torch.float64)
    targets, _ = heatmap_targets(keypoints, weights, (32, 24), (8, 6), 1.0)
    expected = 0.0
    for j in range(2):
        squares = 0.0
        for b in range(3):
            for y in range(8):
                for x in range(6):
                    p, t, w = (
                        output.heatmaps[b, j, y, x].item(),
                        targets[b, j, y, x].item(),
                        weights[b, j].item(),
                    )
                    squares += (w * p - w * t) ** 2
        expected += 0.5 * squares / (3 * 8 * 6) / 2
    loss = HeatmapLoss((32, 24), scale=10)(output, keypoints, weights)
    assert loss.item() == pytest.approx(10 * expected, rel=1e-12)


def test_joints_without_a_label_or_far_outside_have_no_gradient() -> None:
    output = student(1)
    keypoints = torch.tensor([[[math.nan, 1.0], [500.0, 1.0]]], dtype=torch.float64)
    weights = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    loss = HeatmapLoss((32, 24))(output, keypoints, weights)
    loss.backward()
    assert loss.item() == 0 and output.feature.grad.abs().sum() == 0


def test_without_quantisation_the_targets_follow_the_joint() -> None:
    keypoints = torch.tensor([[[9.0, 9.0], [10.0, 10.0]]], dtype=torch.float64)
    ones = torch.ones(1, 2, dtype=torch.float64)
    for quantized in (True, False):
        targets, _ = heatmap_targets(keypoints, ones, (32, 24), (8, 6), 1.5, quantized=quantized)
        loss = HeatmapLoss((32, 24), sigma=1.5, quantized=quantized)(HeatmapOutput(targets), keypoints, ones)
        assert loss.item() == 0
        other = HeatmapLoss((32, 24), sigma=1.5, quantized=not quantized)
        assert other(HeatmapOutput(targets), keypoints, ones).item() > 0


def test_sape_alone_distils_between_heatmap_networks() -> None:
    output = student()
    teacher = HeatmapOutput(torch.randn(3, 2, 16, 12, dtype=torch.float64, requires_grad=True))
    loss = DistillationLoss(HeatmapLoss((32, 24)), sape=SAPE(2, (8, 6), (16, 12)), alpha=0.5).double()
    terms = loss(output, teacher, *labels(), 0.0)
    assert set(terms) == {"total", "heatmap", "sape", "alpha"}
    torch.testing.assert_close(terms["total"], terms["heatmap"] + 0.5 * terms["sape"])
    terms["sape"].backward()
    assert output.feature.grad.abs().sum() > 0 and teacher.feature.grad is None
    assert loss.sape is not None
    assert loss.sape.projector_weight.grad.abs().sum() > 0


def test_cca_needs_classes(make_outputs: Any) -> None:
    loss = DistillationLoss(SimCCLoss(2.0), cca=CCA())
    with pytest.raises(
        InputError, match="teacher: expected SimCC logits, whose classes CCA aligns, got heatmaps"
    ):
        loss(make_outputs(), HeatmapOutput(torch.zeros(3, 2, 4, 6)), *labels(), 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (0, 4)}, "input_size: expected two positive integers"),
        ({"sigma": 0.0}, "sigma: expected a positive number of cells"),
        ({"scale": math.inf}, "scale: expected a positive"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HeatmapLoss(**({"input_size": (32, 24)} | options))


def test_refused_shapes() -> None:
    loss = HeatmapLoss((32, 24))
    with pytest.raises(InputError, match=r"keypoints: expected shape \(3, 2, 2\)"):
        loss(student(), torch.zeros(3, 3, 2), torch.ones(3, 2))
    with pytest.raises(InputError, match="weights: expected weights of at least 0"):
        loss(student(), torch.zeros(3, 2, 2), -torch.ones(3, 2))
