"""Logit alignment across class counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.distillation import CCA
from cdkd_ext.errors import InputError
from cdkd_ext.ops import reference


def row_loss(student: Tensor, teacher: Tensor, tau: float, m: int) -> Tensor:
    """Eq. 6-7 for an integer ratio m: softmax, sum of m neighbours, τ²·KL."""
    merged = (teacher / tau).softmax(-1).unflatten(-1, (-1, m)).sum(-1)
    return tau**2 * (merged * (merged.log() - (student / tau).log_softmax(-1))).sum(-1)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_value_and_gradient_against_the_equations(make_outputs: Callable[..., Any], tau: float) -> None:
    torch.manual_seed(0)
    student, teacher = make_outputs(bins=(6, 4)), make_outputs(bins=(12, 12))
    weights = torch.rand(3, 2, dtype=torch.float64)
    loss = CCA()(student, teacher, tau, weights)
    rows_x = row_loss(student.logits_x, teacher.logits_x.detach(), tau, 2)
    rows_y = row_loss(student.logits_y, teacher.logits_y.detach(), tau, 3)
    expected = ((rows_x + rows_y) * weights).sum() / 6
    torch.testing.assert_close(loss, expected)
    actual = torch.autograd.grad(loss, [student.logits_x, student.logits_y], retain_graph=True)
    wanted = torch.autograd.grad(expected, [student.logits_x, student.logits_y])
    torch.testing.assert_close(actual, wanted)
    loss.backward()
    assert teacher.logits_x.grad is None
    assert teacher.logits_y.grad is None


def test_gradient_of_tau_comes_through_both_softmaxes(make_outputs: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    student, teacher = make_outputs(bins=(6, 4)), make_outputs(bins=(12, 8))
    tau = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(CCA()(student, teacher, tau), tau)
    step = 1e-5
    above, below = (CCA()(student, teacher, tau.detach() + offset).item() for offset in (step, -step))
    assert gradient.item() == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_no_weights_are_ones(make_outputs: Callable[..., Any]) -> None:
    student, teacher = make_outputs(bins=(6, 4)), make_outputs(bins=(12, 12))
    ones = torch.ones(3, 2, dtype=torch.float64)
    torch.testing.assert_close(CCA()(student, teacher, 1.0), CCA()(student, teacher, 1.0, ones))


def test_phases(make_outputs: Callable[..., Any]) -> None:
    """The nearest student bin agrees with the teacher in the centred phase only."""
    student, teacher = make_outputs(1, 1, bins=(8, 8)), make_outputs(1, 1, bins=(32, 32))
    student_peak, teacher_peak = torch.full((1, 1, 8), -30.0), torch.full((1, 1, 32), -30.0)
    student_peak[..., 3] = 0
    teacher_peak[..., 11] = 0  # coordinate 2.75 in student bins: nearest to 3, but Eq. 6 puts it in class 2
    student = student._replace(logits_x=student_peak, logits_y=student_peak)
    teacher = teacher._replace(logits_x=teacher_peak, logits_y=teacher_peak)
    assert CCA("paper")(student, teacher, 1.0).item() > 10
    assert CCA("centered")(student, teacher, 1.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_student_of_a_float32_teacher(
    make_outputs: Callable[..., Any], dtype: torch.dtype
) -> None:
    student = make_outputs(bins=(6, 4), dtype=dtype)
    teacher = make_outputs(bins=(12, 12), dtype=torch.float32)
    loss = CCA()(student, teacher, 1.0)
    assert loss.dtype == torch.float32
    loss.backward()
    assert student.logits_x.grad is not None
    assert student.logits_x.grad.dtype == dtype
    assert student.logits_x.grad.abs().sum() > 0


def test_a_teacher_with_fewer_bins_moved_by_an_offset_per_axis(make_outputs: Callable[..., Any]) -> None:
    student, teacher = make_outputs(bins=(12, 8)), make_outputs(bins=(6, 8))
    loss = CCA(offset=(-0.25, 1.5))(student, teacher, 2.0)
    rows_x = reference.cca_kl(student.logits_x, teacher.logits_x, 2.0, offset=-0.25)
    rows_y = reference.cca_kl(student.logits_y, teacher.logits_y, 2.0, offset=1.5)
    torch.testing.assert_close(loss, (rows_x + rows_y).mean())
    torch.testing.assert_close(
        CCA(offset=1.5)(student, student, 1.0), CCA(offset=(1.5, 1.5))(student, student, 1.0)
    )


def test_probabilities_in_place_of_logits(make_outputs: Callable[..., Any]) -> None:
    student, teacher = make_outputs(bins=(6, 4)), make_outputs(bins=(12, 8))
    powers = teacher._replace(logits_x=3 * teacher.logits_x.exp(), logits_y=teacher.logits_y.exp())
    expected = CCA("centered")(student, teacher, 1.5)
    torch.testing.assert_close(CCA("centered")(student, powers, 1.5, probabilities=True), expected)


def test_joints_without_weight_may_hold_anything(make_outputs: Callable[..., Any]) -> None:
    student, teacher = make_outputs(bins=(6, 4)), make_outputs(bins=(12, 8))
    weights = torch.ones(3, 2)
    weights[1, 0] = 0
    expected = CCA()(student, teacher, 1.0, weights)
    with torch.no_grad():
        student.logits_x[1, 0], teacher.logits_y[1, 0, 3] = math.nan, math.nan
    loss = CCA()(student, teacher, 1.0, weights)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.logits_x.grad.isfinite().all() and not student.logits_x.grad[1, 0].any()


def test_refusals(make_outputs: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="phase: expected one of 'paper', 'centered'"):
        CCA("printed")
    student = make_outputs(bins=(12, 8))
    with pytest.raises(InputError, match=r"offset: expected None with phase 'centered', got 0\.5"):
        CCA("centered", offset=0.5)
    for offset in (math.nan, (0.5, math.inf), (0.5,), (1, 2, 3), (), "left", (0.5, "up")):
        with pytest.raises(InputError, match=r"offset: expected a finite number of teacher bins, or two"):
            CCA(offset=offset)
    with pytest.raises(InputError, match=r"teacher\.logits_x: expected shape \(3, 2, N\)"):
        CCA()(student, make_outputs(joints=4), 1.0)
    with pytest.raises(InputError, match="weights: expected weights of at least 0"):
        CCA()(student, make_outputs(), 1.0, -torch.ones(3, 2))
