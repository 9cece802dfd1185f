"""SimCC's own loss: labels, reductions, and what has no loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cdkd_ext.distillation import SimCCLoss
from cdkd_ext.errors import InputError


def label_rows(logits: Tensor, coordinate: Tensor, kind: str, sigma: float, smoothing: float) -> Tensor:
    """Σ t·(log t - log p) with explicit targets, per row."""
    rows = []
    for row, x in zip(logits.reshape(-1, logits.shape[-1]), coordinate.flatten().tolist(), strict=True):
        count = row.shape[0]
        if kind == "hard":
            target = torch.full((count,), smoothing / (count - 1), dtype=row.dtype)
            target[round(x)] = 1 - smoothing
        else:
            target = torch.exp(-((torch.arange(count) - x) ** 2) / (2 * sigma**2)) / (
                sigma * math.sqrt(2 * math.pi)
            )
        target = target.to(row.dtype)
        rows.append((torch.xlogy(target, target) - target * row.log_softmax(-1)).sum())
    return torch.stack(rows).view(coordinate.shape)


@pytest.mark.parametrize("reduction", ["row_mean", "sum", "mean"])
@pytest.mark.parametrize(
    "options",
    [
        {"kind": "gaussian", "sigma": 1.5, "label_smoothing": 0.0},
        {"kind": "hard", "sigma": 1.0, "label_smoothing": 0.0},
        {"kind": "hard", "sigma": 1.0, "label_smoothing": 0.2},
    ],
)
def test_against_explicit_targets(
    make_outputs: Callable[..., Any], reduction: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    student = make_outputs(bins=(18, 12))
    keypoints = torch.rand(3, 2, 2, dtype=torch.float64) * torch.tensor([5.0, 3.5])
    weights = torch.rand(3, 2, dtype=torch.float64)
    loss = SimCCLoss(3.0, reduction=reduction, scale=10, **options)(student, keypoints, weights)
    expected = torch.zeros((), dtype=torch.float64)
    for axis, logits in enumerate((student.logits_x, student.logits_y)):
        rows = label_rows(
            logits, keypoints[..., axis] * 3, options["kind"], options["sigma"], options["label_smoothing"]
        )
        divisor = {"row_mean": 3 * 2, "sum": 3, "mean": 3 * 2 * logits.shape[-1]}[reduction]
        expected = expected + 10 * (rows * weights).sum() / divisor
    torch.testing.assert_close(loss, expected)
    actual = torch.autograd.grad(loss, student.logits_x)
    torch.testing.assert_close(actual, torch.autograd.grad(expected, student.logits_x))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_released_hard_losses_joint_by_joint(
    make_outputs: Callable[..., Any], reduction: str, smoothing: float
) -> None:
    """SimCC's criteria: NLL or KL against smoothed one-hot rows, times the weight, in the release's order."""
    student = make_outputs(3, 2, bins=(18, 12))
    keypoints = torch.rand(3, 2, 2, dtype=torch.float64) * torch.tensor([5.0, 3.5])
    weights = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    expected = 0.0
    for joint in range(2):
        for axis, logits in enumerate((student.logits_x, student.logits_y)):
            log_probability = logits[:, joint].log_softmax(1)
            label = (keypoints[:, joint, axis] * 3).round().long()
            bins = logits.shape[-1]
            if smoothing:
                target = torch.full((3, bins), smoothing / (bins - 1), dtype=torch.float64)
                target[torch.arange(3), label] = 1 - smoothing
                rows = functional.kl_div(log_probability, target, reduction="none").sum(1)
            else:
                rows = functional.nll_loss(log_probability, label, reduction="none")
            weighted = rows * weights[:, joint]
            expected += (weighted.sum() / 3 if reduction == "sum" else weighted.mean() / bins / 2).item()
    loss = SimCCLoss(3.0, kind="hard", label_smoothing=smoothing, reduction=reduction)
    assert loss(student, keypoints, weights).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "hard"])
@pytest.mark.parametrize("outside", [(-0.3, 1.0), (6.0, 1.0), (1.0, 4.0), (1.0, -5.0), (math.nan, 1.0)])
def test_a_label_outside_either_axis_has_no_loss(
    make_outputs: Callable[..., Any], kind: str, outside: tuple[float, float]
) -> None:
    student = make_outputs(2, 1, bins=(18, 12))
    keypoints = torch.tensor([[[2.0, 2.0]], [outside]], dtype=torch.float64)
    loss = SimCCLoss(3.0, kind=kind)(student, keypoints, torch.ones(2, 1, dtype=torch.float64))
    loss.backward()
    for logits in (student.logits_x, student.logits_y):
        assert logits.grad.isfinite().all()
        assert logits.grad[0].abs().sum() > 0
        assert logits.grad[1].abs().sum() == 0


@pytest.mark.parametrize("coordinate", [math.nan, math.inf, 1.0])
def test_a_joint_of_weight_zero_may_be_anywhere(make_outputs: Callable[..., Any], coordinate: float) -> None:
    student = make_outputs(1, 2)
    keypoints = torch.tensor([[[1.0, 1.0], [coordinate, coordinate]]], dtype=torch.float64)
    loss = SimCCLoss(2.0)(student, keypoints, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    loss.backward()
    assert loss.isfinite()
    assert student.logits_x.grad[0, 1].abs().sum() == 0


def test_half_precision_logits_keep_the_label_in_float32(make_outputs: Callable[..., Any]) -> None:
    """At 2049 bins float16 could not hold the label's bin."""
    student = make_outputs(1, 1, bins=(2304, 2304), dtype=torch.float16)
    keypoints, ones = torch.tensor([[[683.0, 683.0]]]), torch.ones(1, 1)
    loss = SimCCLoss(3.0, kind="hard")(student, keypoints, ones)
    expected = -sum(logits.detach().float().log_softmax(-1)[0, 0, 2049] for logits in student[1:])
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_ratio": 0}, "split_ratio: expected a positive"),
        ({"kind": "soft"}, "kind: expected one of 'gaussian', 'hard'"),
        ({"sigma": 0.0}, "sigma: expected a positive"),
        ({"label_smoothing": 1.0}, r"label_smoothing: expected a share in \[0, 1\)"),
        ({"reduction": "none"}, "reduction: expected one of"),
        ({"scale": math.inf}, "scale: expected a positive"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SimCCLoss(**({"split_ratio": 2.0} | options))


def test_refused_shapes(make_outputs: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"keypoints: expected shape \(3, 2, 2\)"):
        SimCCLoss(2.0)(make_outputs(), torch.zeros(3, 3, 2), torch.ones(3, 2))
    with pytest.raises(InputError, match=r"weights: expected shape \(3, 2\)"):
        SimCCLoss(2.0)(make_outputs(), torch.zeros(3, 2, 2), torch.ones(3))
