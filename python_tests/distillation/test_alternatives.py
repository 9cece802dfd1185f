"""The alignments that SAPE and CCA are compared with: values, gradients and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.distillation import (
    CCA,
    DistillationLoss,
    FeatureAlignment,
    FullyConnectedClasses,
    FullyConnectedFeatures,
    SimCCLoss,
    StridedConvolution,
    TeacherOutput,
)
from cdkd_ext.errors import InputError


def features() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    student = torch.randn(3, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    return student, torch.randn(3, 2, 4, 9, dtype=torch.float64, requires_grad=True)


def strided_by_loops(term: StridedConvolution, student: Tensor, teacher: Tensor) -> float:
    """Every cell of the student beside the 2x3 cells of the teacher that lie over it."""
    weight, bias = term.convolution.weight, term.convolution.bias
    total = 0.0
    for b in range(3):
        for channel in range(2):
            for row in range(2):
                for column in range(3):
                    seen = teacher[b, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
                    found = float((seen * weight[channel]).sum() + bias[channel])
                    total += (found - float(student[b, channel, row, column])) ** 2
    return total / student.numel()


def test_the_strided_convolution_against_plain_loops() -> None:
    student, teacher = features()
    term = StridedConvolution(2, (2, 3), (4, 9)).double()
    assert term.convolution.weight.shape == (2, 2, 2, 3)
    with torch.no_grad():
        expected = strided_by_loops(term, student, teacher)
        assert term(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_connected_features_against_plain_loops() -> None:
    student, teacher = features()
    term = FullyConnectedFeatures(2, (2, 3), (4, 9)).double()
    assert term.linear.weight.shape == (2 * 4 * 9, 2 * 2 * 3)
    total = 0.0
    for b in range(3):
        given, wanted = student[b].flatten().tolist(), teacher[b].flatten().tolist()
        for row, bias, target in zip(
            term.linear.weight.tolist(), term.linear.bias.tolist(), wanted, strict=True
        ):
            total += (sum(w * v for w, v in zip(row, given, strict=True)) + bias - target) ** 2
    assert term(student, teacher).item() == pytest.approx(total / teacher.numel(), rel=1e-12)


@pytest.mark.parametrize("kind", [StridedConvolution, FullyConnectedFeatures])
def test_gradients_reach_the_student_and_the_layer_alone(kind: type[FeatureAlignment]) -> None:
    student, teacher = features()
    term = kind(2, (2, 3), (4, 9)).double()  # type: ignore[call-arg]
    term(student, teacher).backward()
    assert teacher.grad is None
    for value in (student, *term.parameters()):
        assert value.grad is not None and value.grad.abs().sum() > 0
    fixed = teacher.detach()
    assert torch.autograd.gradcheck(lambda given: term(given, fixed), [student])
    half = term.float()(student.detach().half(), fixed.half())
    assert half.dtype == torch.float32 and half.isfinite()


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_connected_classes_against_the_equation(make_outputs: Callable[..., Any], tau: float) -> None:
    torch.manual_seed(0)
    student, teacher = make_outputs(bins=(6, 4)), make_outputs(bins=(9, 8))
    term = FullyConnectedClasses((6, 4), (9, 8)).double()
    weights = torch.rand(3, 2, dtype=torch.float64)
    expected = 0.0
    for own, other, linear in (
        (student.logits_x, teacher.logits_x, term.linear_x),
        (student.logits_y, teacher.logits_y, term.linear_y),
    ):
        wanted = (other.detach() / tau).log_softmax(-1)
        found = ((own @ linear.weight.T + linear.bias) / tau).log_softmax(-1)
        rows = tau**2 * (wanted.exp() * (wanted - found)).sum(-1)
        expected = expected + (rows * weights).sum() / 6
    loss = term(student, teacher, tau, weights)
    torch.testing.assert_close(loss, expected)
    inputs = [student.logits_x, student.logits_y, *term.parameters()]
    actual = torch.autograd.grad(loss, inputs)
    for gradient, exact in zip(actual, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(gradient, exact)
        assert gradient.abs().sum() > 0


def test_connected_classes_are_in_the_total_and_learn(make_outputs: Callable[..., Any]) -> None:
    term = FullyConnectedClasses((12, 8), (24, 16))
    loss = DistillationLoss(SimCCLoss(2.0), cca=term, beta=3.0).double()
    student, taught = make_outputs(bins=(12, 8)), make_outputs(bins=(24, 16))
    keypoints = torch.rand(3, 2, 2, dtype=torch.float64) * 3
    ones = torch.ones(3, 2, dtype=torch.float64)
    terms = loss(student, TeacherOutput(*taught), keypoints, ones, ones[:, 0], 0.0)
    torch.testing.assert_close(terms["total"], terms["simcc"] + 3 * terms["cca"])
    terms["total"].backward()
    assert all(value.grad is not None for value in term.parameters())


def test_what_is_refused(make_outputs: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"teacher_size: expected multiples of student_size \(2, 3\)"):
        StridedConvolution(2, (2, 3), (4, 7))
    with pytest.raises(InputError, match="max_weights: expected at least 268435456"):
        FullyConnectedFeatures(16, (16, 16), (64, 64), max_weights=10**8)
    with pytest.raises(InputError, match="channels: expected a positive integer"):
        FullyConnectedFeatures(0, (2, 2), (4, 4))
    with pytest.raises(InputError, match=r"teacher_feature: expected shape \(1, 2, 4, 4\)"):
        StridedConvolution(2, (2, 2), (4, 4))(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 4, 8))
    with pytest.raises(InputError, match="student_bins: expected two positive integers"):
        FullyConnectedClasses((0, 4), (8, 8))
    term = FullyConnectedClasses((6, 4), (9, 8)).double()
    with pytest.raises(InputError, match=r"teacher\.logits_x: expected shape \(3, 2, 9\)"):
        term(make_outputs(bins=(6, 4)), make_outputs(bins=(12, 8)), 1.0)
    with pytest.raises(InputError, match="student: expected SimCC logits"):
        term(TeacherOutput(torch.zeros(1, 2, 3, 3)), make_outputs(bins=(9, 8)), 1.0)
    assert isinstance(term, CCA)
