from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cdkd_ext import ops
from cdkd_ext.errors import InputError
from cdkd_ext.ops import reference

EITHER = pytest.mark.parametrize("cca_kl", [ops.cca_kl, reference.cca_kl], ids=["compiled", "reference"])


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def logits_of(probabilities: list[float], tau: float = 1.0) -> Tensor:
    """Logits, moved by a constant, whose softmax at `tau` are these probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log() * tau + 3


@EITHER
@pytest.mark.parametrize("tau", [1.0, 2.5])
@pytest.mark.parametrize(
    ("phase", "teacher", "student", "merged"),
    [
        ("paper", [0.1, 0.2, 0.3, 0.4], [0.5, 0.5], [0.3, 0.7]),
        # m = 2: class 0 reaches to 1.5
        ("centered", [0.1, 0.2, 0.3, 0.4], [0.5, 0.5], [0.2, 0.8]),
        # m = 4: class 0 reaches to 2.5
        ("centered", [0.05, 0.1, 0.2, 0.05, 0.1, 0.2, 0.2, 0.1], [0.6, 0.4], [0.25, 0.75]),
        # m = 3: classes start at -1, 2 and 5
        ("centered", [0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], [0.3, 0.3, 0.4], [0.2, 0.4, 0.4]),
        # m = 5/2: bin 2 is shared equally
        ("paper", [0.1, 0.2, 0.4, 0.1, 0.2], [0.4, 0.6], [0.5, 0.5]),
        # m = 5/2, moved down by 3/4: the edge is at 1.75
        ("centered", [0.1, 0.2, 0.4, 0.1, 0.2], [0.4, 0.6], [0.25, 0.75]),
        ("paper", [0.25, 0.75], [0.5, 0.5], [0.25, 0.75]),
    ],
)
def test_by_hand(
    cca_kl: Callable[..., Tensor],
    phase: str,
    teacher: list[float],
    student: list[float],
    merged: list[float],
    tau: float,
) -> None:
    loss = cca_kl(logits_of(student, tau), logits_of(teacher, tau), tau, phase=phase)
    assert loss.item() == pytest.approx(tau**2 * kl(merged, student), rel=1e-12)


@EITHER
@pytest.mark.parametrize(
    ("offset", "teacher", "student", "merged"),
    [
        # m = 2/3: edges at 2/3 and 4/3
        (0.0, [0.3, 0.7], [0.2, 0.3, 0.5], [0.2, 0.1 + 0.7 / 3, 1.4 / 3]),
        # edges at 2/3 + 1/6 and 4/3 + 1/6
        (-1 / 6, [0.3, 0.7], [0.2, 0.3, 0.5], [0.25, 0.4, 0.35]),
        # m = 1/2, a bin up: the first class takes all that lies below 3/2
        (-1.0, [0.2, 0.8], [0.1, 0.2, 0.3, 0.4], [0.6, 0.4, 0.0, 0.0]),
        # m = 2: edge at 2 - 1/4
        (0.25, [0.1, 0.2, 0.3, 0.4], [0.5, 0.5], [0.25, 0.75]),
        (7.0, [0.1, 0.2, 0.3, 0.4], [0.5, 0.5], [0.0, 1.0]),
        (-1e300, [0.1, 0.2, 0.3, 0.4], [0.5, 0.5], [1.0, 0.0]),
    ],
)
def test_offsets_by_hand(
    cca_kl: Callable[..., Tensor],
    offset: float,
    teacher: list[float],
    student: list[float],
    merged: list[float],
) -> None:
    expected = sum(a * math.log(a / b) for a, b in zip(merged, student, strict=True) if a)
    assert cca_kl(logits_of(student), logits_of(teacher), 1.0, offset=offset).item() == pytest.approx(
        expected
    )
    unnormalised = 5 * torch.tensor(teacher, dtype=torch.float64)
    found = cca_kl(logits_of(student), unnormalised, 1.0, offset=offset, probabilities=True)
    assert found.item() == pytest.approx(expected)


@EITHER
@pytest.mark.parametrize("counts", [(12, 48), (12, 30), (64, 192), (192, 64)])
def test_phases_are_offsets(cca_kl: Callable[..., Tensor], counts: tuple[int, int]) -> None:
    student, teacher = (torch.randn(3, count, dtype=torch.float64) for count in counts)
    ratio = counts[1] / counts[0]
    for phase, offset in (("paper", 0), ("centered", (ratio - 1) / 2)):
        expected = cca_kl(student, teacher, 1.5, phase=phase)
        torch.testing.assert_close(cca_kl(student, teacher, 1.5, offset=offset), expected)


@EITHER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_without_weight_are_not_read(cca_kl: Callable[..., Tensor], dtype: torch.dtype) -> None:
    student, teacher = torch.randn(2, 2, 6).to(dtype), torch.randn(2, 2, 24).to(dtype)
    weights = torch.tensor([[0.5, 0.0], [-0.0, 3.0]])
    expected = weights.to(cca_kl(student, teacher, 1.5)) * cca_kl(student, teacher, 1.5)
    student[0, 1], student[1, 0, 2], teacher[0, 1, 3], teacher[1, 0] = math.inf, math.nan, math.nan, -math.inf
    student.requires_grad_()
    tau = torch.tensor(1.5, requires_grad=True)
    loss = cca_kl(student, teacher, tau, weights=weights)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert student.grad is not None and tau.grad is not None and tau.grad.isfinite()
    assert (student.grad != 0).any(-1).tolist() == [[True, False], [False, True]]
    assert student.grad.isfinite().all()


@EITHER
def test_weights_that_are_no_numbers_make_no_numbers(cca_kl: Callable[..., Tensor]) -> None:
    student, teacher = torch.randn(3, 6), torch.randn(3, 24)
    weights = torch.tensor([math.nan, -1.0, 1.0], requires_grad=True)
    loss = cca_kl(student.requires_grad_(), teacher, 1.0, weights=weights)
    assert loss.isnan().tolist() == [True, False, False] and loss[1] < 0 < loss[2]
    loss.sum().backward()
    assert weights.grad is None


@EITHER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_zero(cca_kl: Callable[..., Tensor], dtype: torch.dtype) -> None:
    p = torch.tensor(
        [[0.0, 0.5, 0.0, 2.0], [0.0] * 4, [1.0, 1.0, 1.0, -1.0], [0.0, 1e-38, 1e-44, 0.0]], dtype=dtype
    )
    student = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    tau = torch.tensor(21.0, dtype=dtype, requires_grad=True)
    loss = cca_kl(student, p, tau, probabilities=True)
    assert loss.isnan().tolist() == [False, True, True, False]
    exact = cca_kl(student.double(), p.double().log(), 21.0)
    torch.testing.assert_close(loss[[0, 3]].double(), exact[[0, 3]], rtol=1e-4, atol=1e-4)
    weights = torch.tensor([1, 0, 0, 1], dtype=dtype)
    loss = cca_kl(student, p, tau, probabilities=True, weights=weights)
    gradients = torch.autograd.grad(loss.sum(), (student, tau))
    assert all(gradient.isfinite().all() for gradient in gradients) and not gradients[0][1:3].any()


@EITHER
def test_gradients_by_hand(cca_kl: Callable[..., Tensor]) -> None:
    student = logits_of([0.5, 0.5]).requires_grad_()
    teacher = logits_of([0.1, 0.2, 0.3, 0.4])
    tau = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    cca_kl(student, teacher, tau).backward()
    assert student.grad is not None
    assert student.grad.tolist() == pytest.approx([0.2, -0.2])

    def loss_at(t: float) -> float:
        p = [0.1 ** (1 / t), 0.2 ** (1 / t), 0.3 ** (1 / t), 0.4 ** (1 / t)]
        return t**2 * kl([(p[0] + p[1]) / sum(p), (p[2] + p[3]) / sum(p)], [0.5, 0.5])

    assert tau.grad is not None
    assert tau.grad.item() == pytest.approx((loss_at(1.0001) - loss_at(0.9999)) / 0.0002, rel=1e-6)


@settings(max_examples=60)
@given(
    classes=st.integers(1, 140),
    bins=st.integers(1, 140),
    rows=st.integers(1, 3),
    tau=st.floats(0.3, 20),
    phase=st.sampled_from(["paper", "centered"]),
    seed=st.integers(0, 1000),
)
def test_any_ratio_agrees_with_the_reference(
    classes: int, bins: int, rows: int, tau: float, phase: str, seed: int
) -> None:
    check_against_reference(rows, classes, bins, tau, seed, phase=phase)


@settings(max_examples=40)
@given(
    classes=st.integers(1, 40),
    ratio=st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12, 16, 24]),
    phase=st.sampled_from(["paper", "centered"]),
    seed=st.integers(0, 1000),
)
def test_whole_ratios_agree_with_the_reference(classes: int, ratio: int, phase: str, seed: int) -> None:
    check_against_reference(2, classes, classes * ratio, 1.3, seed, phase=phase)


@settings(max_examples=80)
@given(
    classes=st.integers(1, 40),
    ratio=st.sampled_from([1, 2, 3, 4, 6, 8, 48, 0.5, 1 / 3, 0.4, 2.7]),
    offset=st.one_of(st.integers(-40, 40).map(lambda halves: halves / 2), st.floats(-200, 200)),
    weighted=st.booleans(),
    probabilities=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_offsets_weights_and_probabilities_agree_with_the_reference(
    classes: int, ratio: float, offset: float, weighted: bool, probabilities: bool, seed: int
) -> None:
    weights = torch.tensor([0.0, 0.7, -1.5]) if weighted else None
    options = {"offset": offset, "weights": weights, "probabilities": probabilities}
    check_against_reference(3, classes, max(1, round(classes * ratio)), 1.3, seed, **options)


def check_against_reference(
    rows: int, classes: int, bins: int, tau_value: float, seed: int, **options: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(rows, classes, generator=generator) * 3
    teacher = torch.randn(rows, bins, generator=generator) * 3
    if options.get("probabilities"):
        teacher = teacher.clamp(min=0) * 7  # half of them 0
        teacher[:, 0] += 0.1
    weight = torch.rand(rows, generator=generator)
    outcomes = []
    for function, dtype in (
        (ops.cca_kl, torch.float32),
        (ops.cca_kl, torch.float64),
        (reference.cca_kl, torch.float64),
    ):
        logits = student.to(dtype).requires_grad_()
        tau = torch.tensor(tau_value, dtype=dtype, requires_grad=True)
        loss = function(logits, teacher.to(dtype), tau, **options)
        outcomes.append((loss, *torch.autograd.grad((loss * weight).sum(), (logits, tau))))
    single, double, exact = outcomes
    # in float32 the terms that make up the loss, of order τ²·log, cancel
    scale = max(1.0, tau_value**2)
    torch.testing.assert_close(double, exact, rtol=1e-10, atol=1e-11 * scale)
    for found, wanted in zip(single, exact, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=3e-6 * scale)


def test_moving_and_scaling_logits() -> None:
    student, teacher = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 24, dtype=torch.float64)
    loss = ops.cca_kl(student, teacher, 1.5)
    torch.testing.assert_close(ops.cca_kl(student + 7, teacher - 5, 1.5), loss)
    torch.testing.assert_close(ops.cca_kl(student * 3, teacher * 3, 4.5), loss * 9)


def test_a_student_that_knows_it_all_loses_nothing() -> None:
    logits = (torch.randn(5, 32) * 4).requires_grad_()
    loss = ops.cca_kl(logits, logits.detach(), 2.0)
    loss.sum().backward()
    assert logits.grad is not None
    assert loss.abs().max() < 2e-6
    assert logits.grad.abs().max() < 1e-6


def test_merging_is_not_merging_logits() -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 24)
    mistaken = reference.cca_kl(student, teacher.unflatten(-1, (6, 4)).sum(-1), 1.0)
    assert not torch.allclose(ops.cca_kl(student, teacher, 1.0), mistaken, rtol=0.05)


def test_phases_differ() -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 24) * 3
    paper, centered = (ops.cca_kl(student, teacher, 1.0, phase=phase) for phase in ("paper", "centered"))
    assert not torch.allclose(paper, centered, rtol=0.01)


@pytest.mark.parametrize("phase", ["paper", "centered"])
@pytest.mark.parametrize("bins", [8, 12, 16, 10])
def test_no_mass_is_lost(phase: str, bins: int) -> None:
    """The gradient p - q sums to zero exactly if the merged teacher sums to one, wherever its mass lies."""
    teacher = torch.full((bins, bins), -math.inf, dtype=torch.float64)
    teacher.fill_diagonal_(0.0)
    student = torch.randn(bins, 4, dtype=torch.float64, requires_grad=True)
    ops.cca_kl(student, teacher, 1.0, phase=phase).sum().backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad.sum(-1), torch.zeros(bins, dtype=torch.float64))
    merged = torch.softmax(student.detach(), -1) - student.grad
    torch.testing.assert_close(merged, reference.merge_matrix(bins, 4, phase))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_excluded_classes(dtype: torch.dtype) -> None:
    student = torch.tensor([[0.5, -math.inf, 1.0], [0.5, -math.inf, 1.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0, -math.inf, -math.inf, 0.5, 0.0], [0.0] * 6], dtype=dtype)
    tau = torch.tensor(1.0, dtype=dtype, requires_grad=True)
    loss = ops.cca_kl(student, teacher, tau)
    assert loss[0].isfinite() and loss[1] == math.inf
    without = ops.cca_kl(student.detach()[0, [0, 2]], teacher[0, [0, 1, 4, 5]], 1.0)
    torch.testing.assert_close(loss[0].detach(), without)
    loss[0].backward()
    assert student.grad is not None and tau.grad is not None
    assert student.grad[0, 1] == 0 and student.grad[0].isfinite().all()
    assert tau.grad.isfinite()


def test_a_nan_stays_in_its_row() -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 24)
    clean = student.clone().requires_grad_()
    ops.cca_kl(clean, teacher, 1.0).sum().backward()
    for rows, logits in ((1, student), (2, teacher)):
        logits[rows, 3] = math.nan
    teacher[3] = -math.inf
    student.requires_grad_()
    loss = ops.cca_kl(student, teacher, 1.0)
    loss.sum().backward()
    assert student.grad is not None and clean.grad is not None
    assert loss.isnan().tolist() == [False, True, True, True]
    assert student.grad.isnan().all(-1).tolist() == [False, True, True, True]
    assert torch.equal(student.grad[0], clean.grad[0])


def test_large_logits_do_not_overflow() -> None:
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = ops.cca_kl(student, torch.tensor([[-3e4, 0.0, 3e4, 3e4]]), 1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad is not None
    assert student.grad.tolist() == [[1.0, -1.0]]


def test_leading_axes_are_kept() -> None:
    student, teacher = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 24)
    loss = ops.cca_kl(student, teacher, 1.0)
    assert loss.shape == (2, 3, 4)
    torch.testing.assert_close(loss[1, 2, 3], ops.cca_kl(student[1, 2, 3], teacher[1, 2, 3], 1.0))


def test_types_may_differ() -> None:
    student = torch.randn(3, 6, dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.randn(3, 24)
    loss = ops.cca_kl(student, teacher, 1.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ops.cca_kl(student.float(), teacher, 1.0))
    assert ops.cca_kl(student, teacher.double(), 1.0).dtype == torch.float64


def test_rows_that_a_mask_takes_out_get_no_gradient() -> None:
    student, teacher = torch.randn(2, 6), torch.randn(2, 24)
    student[1] = math.nan
    student.requires_grad_()
    tau = torch.tensor(1.0, requires_grad=True)
    torch.where(torch.tensor([True, False]), ops.cca_kl(student, teacher, tau), 0).sum().backward()
    assert student.grad is not None and tau.grad is not None
    assert student.grad.isfinite().all() and student.grad[0].any() and not student.grad[1].any()
    assert tau.grad.isfinite()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_tau_keeps_its_shape(shape: tuple[int, ...]) -> None:
    tau = torch.full(shape, 2.0, requires_grad=True)
    student, teacher = torch.randn(3, 6), torch.randn(3, 24)
    loss = ops.cca_kl(student, teacher, tau)
    torch.testing.assert_close(loss.detach(), ops.cca_kl(student, teacher, 2))
    loss.sum().backward()
    assert tau.grad is not None and tau.grad.shape == shape and tau.grad.abs().sum() > 0


def test_the_teacher_gets_no_gradient() -> None:
    student = torch.randn(3, 6, requires_grad=True)
    teacher = torch.randn(3, 24, requires_grad=True)
    ops.cca_kl(student, teacher, 1.0).sum().backward()
    assert student.grad is not None and teacher.grad is None


def test_compiled_with_the_default_compiler() -> None:
    @torch.compile(fullgraph=True)
    def step(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
        return ops.cca_kl(student * 2, teacher, tau).mean()

    student, teacher = torch.randn(3, 6, requires_grad=True), torch.randn(3, 24)
    expected = ops.cca_kl(student * 2, teacher, 2.0).mean()
    loss = step(student, teacher, 2.0)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def test_the_temperature_in_compiled_transforms() -> None:
    student, teacher = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 24, dtype=torch.float64)
    student[:, 0] = teacher[:, :4] = -math.inf

    def slope(tau: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda t: ops.cca_kl(student, teacher, t).sum())(tau)

    tau = torch.tensor(2.0, dtype=torch.float64)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(slope, fullgraph=True, backend="eager")(tau), slope(tau))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return torch.func.vmap(lambda row: ops.cca_kl(row, teacher[0], -tau))(x)

    assert torch.compile(loss, fullgraph=True, backend="eager")(student).isnan().all()


def test_compiled_with_a_changing_tau() -> None:
    compiled = torch.compile(ops.cca_kl, fullgraph=True, backend="aot_eager")
    student, teacher = torch.randn(3, 6), torch.randn(3, 24)
    for tau in (1.0, 2.0, 3.0):
        torch.testing.assert_close(compiled(student, teacher, tau), ops.cca_kl(student, teacher, tau))
    with pytest.raises(RuntimeError, match="tau: expected a positive finite number, got -1"):
        compiled(student, teacher, torch.tensor(-1.0))


S, T = torch.zeros(2, 6), torch.zeros(2, 24)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (([0.0], T, 1.0), TypeError, "student_logits: expected a torch.Tensor, got list"),
        (
            (S.int(), T, 1.0),
            TypeError,
            "student_logits: expected dtype float32, float64, bfloat16 or float16, got int",
        ),
        ((S, T.bool(), 1.0), TypeError, "teacher_logits: expected dtype float32"),
        ((S[:, :0], T, 1.0), InputError, r"student_logits: .* at least one bin, got \(2, 0\)"),
        ((torch.tensor(1.0), T, 1.0), InputError, r"student_logits: .* at least one bin, got \(\)"),
        ((S, T[:1], 1.0), InputError, r"teacher_logits: expected shape \(2, bins\), got \(1, 24\)"),
        ((S, T[None], 1.0), InputError, r"teacher_logits: expected shape \(2, bins\), got \(1, 2, 24\)"),
        ((S, T, 0.0), InputError, "tau: expected a positive finite number, got 0.0"),
        ((S, T, -1), InputError, "tau: expected a positive finite number, got -1"),
        ((S, T, math.nan), InputError, "tau: expected a positive finite number, got nan"),
        ((S, T, math.inf), InputError, "tau: expected a positive finite number, got inf"),
        ((S, T, torch.tensor(-2.0)), InputError, "tau: expected a positive finite number, got -2.0"),
        ((S, T, torch.ones(2)), InputError, "tau: expected one element, got 2"),
        ((S, T, torch.tensor(1)), TypeError, "tau: expected dtype float32"),
        ((S, T, "warm"), TypeError, "tau: expected a number or a torch.Tensor, got str"),
        ((S, T.to("meta"), 1.0), InputError, "teacher_logits: expected a tensor on cpu, got one on meta"),
        ((S, T, torch.ones((), device="meta")), InputError, "tau: expected a tensor on cpu, got one on meta"),
    ],
)
def test_mistakes(args: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.cca_kl(*args)


def test_an_offset_beside_a_phase() -> None:
    with pytest.raises(InputError, match=r"offset: expected None with phase 'centered', got 0\.5"):
        ops.cca_kl(S, T, 1.0, phase="centered", offset=0.5)
    with pytest.raises(RuntimeError, match=r"offset: expected None with phase 'centered', got 0\.5"):
        torch.ops.cdkd.cca_kl(S, T, ONE, phase="centered", offset=0.5)


def test_an_unknown_phase() -> None:
    with pytest.raises(InputError, match="phase: expected one of 'paper', 'centered', got 'left'"):
        ops.cca_kl(S, T, 1.0, phase="left")


ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            (S.int(), T, ONE),
            "student_logits: expected dtype float32, float64, bfloat16 or float16, got int32",
        ),
        (
            (S[:, :0], T, ONE),
            r"student_logits: expected shape \(..., bins\) with at least one bin, got \(2, 0\)",
        ),
        ((S, T[:1], ONE), r"teacher_logits: expected shape \(2, bins\), got \(1, 24\)"),
        ((S, T, -ONE), "tau: expected a positive finite number, got -1"),
        ((S, T, torch.ones(2)), "tau: expected one element, got 2"),
    ],
)
def test_mistakes_with_the_raw_op(args: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.cdkd.cca_kl(*args)
    with pytest.raises(RuntimeError, match="phase: expected one of 'paper', 'centered', got 'left'"):
        torch.ops.cdkd.cca_kl(S, T, ONE, phase="left")
