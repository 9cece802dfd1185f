from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cdkd_ext import ops
from cdkd_ext.errors import InputError
from cdkd_ext.ops import reference

EITHER = pytest.mark.parametrize(
    "simcc_kl", [ops.simcc_kl, reference.simcc_kl], ids=["compiled", "reference"]
)

# p = (1/10, 2/10, 3/10, 4/10)
LOGITS = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).log()


@EITHER
@pytest.mark.parametrize(
    ("target", "p"), [(0.0, 0.1), (1.49, 0.2), (1.5, 0.3), (2.5, 0.3), (-0.5, 0.1), (3.49, 0.4), (0.5, 0.1)]
)
def test_hard_labels_round_half_to_even(simcc_kl: Callable[..., Tensor], target: float, p: float) -> None:
    loss = simcc_kl(LOGITS, torch.tensor(target, dtype=torch.float64))
    assert loss.item() == pytest.approx(-math.log(p), rel=1e-12)


@EITHER
def test_smoothed_labels_by_hand(simcc_kl: Callable[..., Tensor]) -> None:
    loss = simcc_kl(LOGITS, torch.tensor(2.0, dtype=torch.float64), label_smoothing=0.3)
    expected = 0.7 * math.log(0.7 / 0.3) + sum(0.1 * math.log(0.1 / p) for p in (0.1, 0.2, 0.4))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@EITHER
@pytest.mark.parametrize("sigma", [0.4, 1.0, 6.0])
def test_gaussian_by_hand(simcc_kl: Callable[..., Tensor], sigma: float) -> None:
    center = 1.3
    t = [math.exp(-((i - center) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) for i in range(4)]
    expected = sum(a * math.log(a / p) for a, p in zip(t, (0.1, 0.2, 0.3, 0.4), strict=True))
    loss = simcc_kl(LOGITS, torch.tensor(center, dtype=torch.float64), sigma=sigma)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@EITHER
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"sigma": 2.0}], ids=str)
@pytest.mark.parametrize("target", [-0.51, 3.5, 4.0, 1e9, -math.inf, math.inf])
def test_labels_outside_give_nothing(
    simcc_kl: Callable[..., Tensor], options: dict[str, float], target: float
) -> None:
    logits = torch.stack((LOGITS, LOGITS * math.nan)).requires_grad_()
    loss = simcc_kl(logits, torch.full((2,), target), **options)
    loss.sum().backward()
    assert logits.grad is not None
    assert loss.tolist() == [0, 0]
    assert not logits.grad.any()


@EITHER
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"sigma": 2.0}], ids=str)
def test_a_nan_stays_in_its_row(simcc_kl: Callable[..., Tensor], options: dict[str, float]) -> None:
    logits = torch.randn(3, 8)
    logits[1, 5] = math.nan
    logits.requires_grad_()
    loss = simcc_kl(logits, torch.tensor([2.0, 2.0, math.nan]), **options)
    loss.sum().backward()
    assert logits.grad is not None
    assert loss.isnan().tolist() == [False, True, True]
    assert logits.grad.isnan().any(-1).tolist() == [False, True, True]


@settings(max_examples=80)
@given(
    bins=st.integers(1, 300),
    option=st.one_of(
        st.none(),
        st.floats(0.01, 0.9).map(lambda s: {"label_smoothing": s}),
        st.floats(0.2, 40).map(lambda s: {"sigma": s}),
    ),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_reference(bins: int, option: dict[str, float] | None, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, bins, generator=generator) * 3
    target = torch.rand(4, generator=generator) * (bins + 2) - 1.5
    outcomes = []
    for function, dtype in (
        (ops.simcc_kl, torch.float32),
        (ops.simcc_kl, torch.float64),
        (reference.simcc_kl, torch.float64),
    ):
        x = logits.to(dtype).requires_grad_()
        loss = function(x, target, **(option or {}))
        outcomes.append((loss, *torch.autograd.grad((loss * torch.arange(1, 5)).sum(), x)))
    single, double, exact = outcomes
    torch.testing.assert_close(double, exact, rtol=1e-10, atol=1e-12)
    for found, wanted in zip(single, exact, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=3e-5, atol=3e-5)


def test_is_cross_entropy_up_to_a_constant() -> None:
    logits = torch.randn(6, 20, requires_grad=True)
    label = torch.randint(20, (6,))
    hard = ops.simcc_kl(logits, label.float())
    torch.testing.assert_close(hard, F.cross_entropy(logits, label, reduction="none"))
    # torch spreads its smoothing over all N bins, so that the label keeps 1 - s + s / N
    ours = ops.simcc_kl(logits, label.float(), label_smoothing=0.19)
    theirs = F.cross_entropy(logits, label, reduction="none", label_smoothing=0.2)
    (gradient,) = torch.autograd.grad(ours.sum(), logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs.sum(), logits)[0])


def test_the_target_gets_no_gradient() -> None:
    logits, target = torch.randn(3, 8, requires_grad=True), torch.ones(3, requires_grad=True)
    ops.simcc_kl(logits, target, sigma=1.0).sum().backward()
    assert logits.grad is not None and target.grad is None


def test_excluded_bins() -> None:
    logits = torch.tensor([[0.0, -math.inf, 1.0]], requires_grad=True)
    assert ops.simcc_kl(logits, torch.tensor([1.0])).item() == math.inf
    loss = ops.simcc_kl(logits, torch.tensor([2.0]))
    loss.sum().backward()
    assert logits.grad is not None
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert logits.grad[0, 1] == 0


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_smoothed_labels_over_excluded_bins(label: float) -> None:
    logits = torch.tensor([[-math.inf, 0.0, 1.0]], requires_grad=True)
    loss = ops.simcc_kl(logits, torch.tensor([label]), label_smoothing=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.item() == math.inf
    target = torch.full((3,), 0.05)
    target[int(label)] = 0.9
    torch.testing.assert_close(gradient[0], logits.detach()[0].softmax(0) - target)


def test_compiled_with_changing_options() -> None:
    compiled = torch.compile(ops.simcc_kl, fullgraph=True, backend="aot_eager")
    logits, target = torch.randn(3, 8), torch.rand(3) * 7
    for sigma in (1.0, 2.0, 3.0):
        torch.testing.assert_close(
            compiled(logits, target, sigma=sigma), ops.simcc_kl(logits, target, sigma=sigma)
        )


X, Y = torch.zeros(2, 8), torch.zeros(2)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((None, Y), {}, TypeError, "logits: expected a torch.Tensor, got NoneType"),
        ((X.long(), Y), {}, TypeError, "logits: expected dtype float32"),
        (
            (X[:, :0], Y),
            {},
            InputError,
            r"logits: expected shape \(..., bins\) with at least one bin, got \(2, 0\)",
        ),
        (
            (X, Y.long()),
            {},
            TypeError,
            "target: expected dtype float32, float64, bfloat16 or float16, got int64",
        ),
        ((X, Y[:1]), {}, InputError, r"target: expected shape \(2,\), got \(1,\)"),
        ((X, X), {}, InputError, r"target: expected shape \(2,\), got \(2, 8\)"),
        ((X, Y.to("meta")), {}, InputError, "target: expected a tensor on cpu, got one on meta"),
        (
            (X, Y),
            {"label_smoothing": 1.0},
            InputError,
            r"label_smoothing: expected a number in \[0, 1\), got 1.0",
        ),
        ((X, Y), {"label_smoothing": -0.1}, InputError, "label_smoothing: expected"),
        ((X, Y), {"label_smoothing": "a"}, TypeError, "label_smoothing: expected a number, got str"),
        ((X, Y), {"sigma": 0.0}, InputError, "sigma: expected a positive finite number of bins, got 0.0"),
        (
            (X, Y),
            {"sigma": math.inf},
            InputError,
            "sigma: expected a positive finite number of bins, got inf",
        ),
        ((X, Y), {"sigma": "wide"}, TypeError, "sigma: expected a number or None, got str"),
        (
            (X, Y),
            {"sigma": 1.0, "label_smoothing": 0.1},
            InputError,
            "label_smoothing: expected 0 with a Gaussian",
        ),
    ],
)
def test_mistakes(args: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.simcc_kl(*args, **options)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((X.int(), Y), {}, "logits: expected dtype float32, float64, bfloat16 or float16, got int32"),
        ((X, Y[:1]), {}, r"target: expected shape \(2,\), got \(1,\)"),
        ((X, Y), {"label_smoothing": 1.5}, r"label_smoothing: expected a number in \[0, 1\), got 1.5"),
        ((X, Y), {"sigma": -1.0}, "sigma: expected a positive finite number of bins, got -1"),
    ],
)
def test_mistakes_with_the_raw_op(args: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.cdkd.simcc_kl(*args, **options)
