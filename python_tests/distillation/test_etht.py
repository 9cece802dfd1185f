"""Gradient reversal, the ramp ξ, and bounded scalars that climb the loss."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.distillation import ETHT, AdversarialScalar, cosine_ramp, gradient_reversal
from cdkd_ext.errors import InputError


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0])
def test_reversal_is_the_identity_forward_and_minus_scale_backward(scale: float) -> None:
    x = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = gradient_reversal(x, scale)
    assert torch.equal(y, x)
    (y**2).sum().backward()
    torch.testing.assert_close(x.grad, -scale * 2 * x.detach())


def test_reversal_lets_no_overflow_through() -> None:
    x = torch.zeros(4, requires_grad=True)
    gradient_reversal(x, 0.0).backward(torch.tensor([math.inf, -math.inf, math.nan, 1.0]))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(4))


@pytest.mark.parametrize("scale", [-0.1, math.nan, math.inf])
def test_reversal_refuses(scale: float) -> None:
    with pytest.raises(InputError, match="scale: expected a finite number of at least 0"):
        gradient_reversal(torch.zeros(1), scale)


def test_ramp_rises_from_zero_to_one() -> None:
    values = [cosine_ramp(step / 100) for step in range(101)]
    assert values[0] == 0
    assert values[50] == pytest.approx(0.5)
    assert values[100] == 1
    assert all(before < after for before, after in pairwise(values))


def test_ramp_can_end_early() -> None:
    etht = ETHT(ramp=0.5)
    assert etht.xi(0.25) == pytest.approx(0.5)
    assert etht.xi(0.5) == etht.xi(0.75) == etht.xi(1.0) == 1


def test_other_schedules() -> None:
    assert ETHT(schedule=lambda progress: progress**2).xi(0.5) == 0.25
    for falling in (
        lambda progress: 1 - progress,
        lambda progress: -1.0,
        lambda progress: progress * math.inf,
    ):
        with pytest.raises(InputError, match="schedule: expected a function on"):
            ETHT(schedule=falling)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_progress_outside(progress: float) -> None:
    with pytest.raises(InputError, match=r"progress: expected a share of the training in \[0, 1\]"):
        ETHT().tau(progress)


def test_paper_start() -> None:
    assert float(ETHT().tau(0.0).detach()) == pytest.approx(1 + 20 / (1 + math.exp(-1)))


@given(
    theta=st.floats(-(2.0**100), 2.0**100, width=32),
    low=st.floats(0.01, 100),
    extent=st.floats(0.01, 100),
)
def test_tau_stays_within_its_bounds(theta: float, low: float, extent: float) -> None:
    etht = ETHT(low, low + extent, theta=theta)
    tau = etht.tau(1.0)
    assert torch.tensor(low) <= tau.detach() <= torch.tensor(low + extent)
    tau.backward()
    assert etht.theta.grad is not None
    assert torch.isfinite(etht.theta.grad)


@pytest.mark.parametrize("slope", [3.0, -3.0])
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_theta_climbs_the_loss_by_exactly_xi_times_rate_times_gradient(slope: float, progress: float) -> None:
    etht = ETHT(1.0, 5.0, theta=0.4).double()
    rate, theta = 0.05, etht.theta.item()
    optimizer = torch.optim.SGD([etht.theta], lr=rate)
    (slope * etht.tau(progress) ** 2).backward()
    optimizer.step()

    sigmoid = 1 / (1 + math.exp(-theta))
    gradient = slope * 2 * (1 + 4 * sigmoid) * 4 * sigmoid * (1 - sigmoid)
    xi = (1 - math.cos(math.pi * progress)) / 2
    assert etht.theta.item() == pytest.approx(theta + xi * rate * gradient, abs=1e-12)
    if progress > 0:
        assert (etht.theta.item() > theta) == (slope > 0)


def test_detached_scale_cancels_the_gradient_of_tau_squared() -> None:
    """Of τ²·f(τ) only τ²·f'(τ) is left, while the value stays."""
    gradients = {}
    for detach in (False, True):
        etht = ETHT(1.0, 5.0, detach_scale=detach).double()
        tau = etht.tau(1.0)
        loss = tau**2 * (1 / tau) * etht.scale(tau)
        assert loss.item() == pytest.approx(tau.item())
        (gradients[detach],) = torch.autograd.grad(loss, tau)
    assert gradients[False].item() == pytest.approx(1)
    assert gradients[True].item() == pytest.approx(-1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_theta_stays_in_float32_when_its_model_is_halved(dtype: torch.dtype) -> None:
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(2, 2), "tau": ETHT(theta=1 + 2**-20)})
    model.to(dtype)
    theta = model["tau"].theta
    assert model["layer"].weight.dtype == dtype
    assert theta.dtype == torch.float32
    assert theta.item() == 1 + 2**-20


@pytest.mark.parametrize("value", [0.3, 4.0])
def test_between_half_and_twice(value: float) -> None:
    scalar = AdversarialScalar.between_half_and_twice(value)
    assert float(scalar.value(0.0).detach()) == pytest.approx(value)
    for theta, bound in ((-1e9, value / 2), (1e9, value * 2)):
        scalar.theta.data.fill_(theta)
        assert float(scalar.value(0.0).detach()) == pytest.approx(bound)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 2.0), "tau_min, tau_max: expected 0 < tau_min < tau_max"),
        ((3.0, 2.0), "tau_min, tau_max: expected 0 < tau_min < tau_max"),
        ((1.0, math.inf), "bounds: expected"),
        ((1.0, 2.0, math.nan), "theta: expected a finite number"),
        ((1.0, 2.0, 0.0, cosine_ramp, 0.0), "ramp: expected a share"),
    ],
)
def test_refusals(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ETHT(*arguments)  # type: ignore[arg-type]
