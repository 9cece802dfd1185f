"""Feature alignment by projectors: values, gradients, modes and refusals."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cdkd_ext.distillation import SAPE
from cdkd_ext.errors import InputError


def plain_sape(sape: SAPE, student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 1-5 with one explicit projected map per projector."""
    batch, channels = student.shape[:2]
    weights = torch.full((batch, sape.num_projectors, channels), 1 / sape.num_projectors, dtype=student.dtype)
    if sape.sau is not None:
        weights = sape.sau.eval()(student)
    mixed = torch.zeros(batch, channels, sape.teacher_size[0] * sape.teacher_size[1], dtype=student.dtype)
    for k in range(sape.num_projectors):
        source = student.flatten(2) if sape.mode == "spatial" else student.flatten(1)
        projected = F.linear(source, sape.projector_weight[k], sape.projector_bias[k]).reshape(mixed.shape)
        if sape.activation == "relu":
            projected = projected.clamp(min=0)
        mixed = mixed + weights[:, k, :, None] * projected
    target = teacher.flatten(2)
    if sape.center_teacher:
        target = target - target.mean(-1, keepdim=True)
    mixed, target = mixed.flatten(1), target.flatten(1)
    cosine = (mixed * target).sum(1) / (mixed.norm(dim=1) * target.norm(dim=1))
    return (1 - cosine).mean()


def features(batch: int = 3, channels: int = 2) -> tuple[Tensor, Tensor]:
    student = torch.randn(batch, channels, 2, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(batch, channels, 4, 5, dtype=torch.float64, requires_grad=True)
    return student, teacher


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu", "center_teacher": False},
        {"use_sau": False, "num_projectors": 1},
        {"use_sau": False, "num_projectors": 4, "activation": "relu"},
        {"mode": "flatten"},
        {"mode": "flatten", "activation": "relu", "center_teacher": False, "use_sau": False},
        {"kernels": [3, 7], "num_projectors": 5},
    ],
)
def test_value_and_gradients_against_the_equations(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sape = SAPE(2, (2, 3), (4, 5), **options).double().eval()
    with torch.no_grad():
        sape.projector_bias.normal_()
    student, teacher = features()
    loss, expected = sape(student, teacher), plain_sape(sape, student, teacher)
    torch.testing.assert_close(loss, expected)
    inputs = [student, *sape.parameters()]
    actual = torch.autograd.grad(loss, inputs)
    for gradient, wanted in zip(actual, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(gradient, wanted)
        assert gradient.abs().sum() > 0


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = features()
    SAPE(2, (2, 3), (4, 5)).double()(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_projectors_start_differently() -> None:
    weights = SAPE(2, (2, 3), (4, 5)).projector_weight
    assert not torch.equal(weights[0], weights[1])


def test_training_reaches_a_teacher_that_a_projector_can_express() -> None:
    torch.manual_seed(0)
    sape = SAPE(2, (2, 3), (4, 5))
    student = torch.randn(16, 2, 2, 3)
    teacher = F.linear(student.flatten(2), torch.randn(20, 6)).view(16, 2, 4, 5)
    optimizer = torch.optim.Adam(sape.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = sape(student, teacher)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


def test_centring_ignores_a_constant_per_channel() -> None:
    student, teacher = features()
    offset = torch.randn(3, 2, 1, 1, dtype=torch.float64)
    centred, printed = (
        SAPE(2, (2, 3), (4, 5), center_teacher=center).double().eval() for center in (True, False)
    )
    torch.testing.assert_close(centred(student, teacher), centred(student, teacher + offset))
    assert printed(student, teacher).item() != pytest.approx(printed(student, teacher + offset).item())


def test_constant_teacher_is_finite() -> None:
    student = torch.randn(2, 2, 2, 3, requires_grad=True)
    loss = SAPE(2, (2, 3), (4, 5))(student, torch.ones(2, 2, 4, 5))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sape = SAPE(2, (2, 3), (4, 5)).eval()
    student, teacher = torch.randn(3, 2, 2, 3).to(dtype), torch.randn(3, 2, 4, 5)
    loss = sape(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, sape(student.float(), teacher))


def test_flatten_says_its_size_and_refuses_before_allocating(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"max_weights: .*'flatten' \(909,115,392 projector weights"):
        SAPE(17, (16, 16), (64, 64), mode="flatten")
    with caplog.at_level(logging.WARNING):
        sape = SAPE(2, (2, 3), (4, 5), mode="flatten", num_projectors=2)
    assert sape.projector_weight.shape == (2, 40, 12)
    assert "960 projector weights" in caplog.text
    with torch.device("meta"):
        SAPE(17, (16, 16), (64, 64), mode="flatten", max_weights=10**10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "dense"}, "mode: expected one of 'spatial', 'flatten'"),
        ({"activation": "gelu"}, "activation: expected one of 'relu', 'none'"),
        ({"num_projectors": 0}, "num_projectors: expected a positive integer"),
        ({"student_channels": 0}, "student_channels: expected a positive integer"),
        ({"student_size": (0, 4)}, "student_size: expected two positive integers"),
        ({"teacher_size": (4,)}, "teacher_size: expected two positive integers"),
        ({"kernels": (2,)}, "kernels: expected one or more odd"),
    ],
)
def test_refused_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"student_channels": 2, "student_size": (2, 3), "teacher_size": (4, 5)}
    with pytest.raises(InputError, match=message):
        SAPE(**(arguments | change))


def test_refused_features() -> None:
    sape = SAPE(2, (2, 3), (4, 5))
    with pytest.raises(InputError, match=r"student_feature: expected shape \(B, 2, 2, 3\)"):
        sape(torch.zeros(1, 2, 3, 2), torch.zeros(1, 2, 4, 5))
    with pytest.raises(InputError, match=r"teacher_feature: expected shape \(3, 2, 4, 5\)"):
        sape(torch.zeros(3, 2, 2, 3), torch.zeros(1, 2, 4, 5))
