"""Easy-to-hard training: scalars that climb the loss through a gradient reversal (CDKD, Eq. 9-12)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cdkd_ext.errors import check, check_type

if TYPE_CHECKING:
    from typing_extensions import Self

Schedule = Callable[[float], float]


def gradient_reversal(x: Tensor, scale: float) -> Tensor:
    """Return `x` unchanged; on the way back its gradient is multiplied by `-scale`.

    A gradient element that is not finite becomes zero: one overflowing step must not turn a scalar into NaN.
    """
    check_type("x", x, Tensor, "a torch.Tensor")
    check(math.isfinite(scale) and scale >= 0, "scale", scale, "a finite number of at least 0")
    return _Reversal.apply(x, scale)


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.where(torch.isfinite(gradient), -ctx.scale * gradient, 0), None


def cosine_ramp(progress: float) -> float:
    """ξ = (1 - cos(π·progress)) / 2, from 0 at the start to 1 at the end (Eq. 12)."""
    return (1 - math.cos(math.pi * progress)) / 2


class AdversarialScalar(nn.Module):
    """A scalar within bounds, low + (high - low)·sigmoid(θ), whose θ ascends the loss with strength ξ.

    θ belongs into an optimiser of its own, plain SGD without momentum or weight decay: one step is then
    θ + ξ·lr·∂L/∂θ exactly, while Adam would normalise ξ away. θ stays in float32 when the module around it is
    converted to half precision.

    Args:
        low: lower bound, at least 0.
        high: upper bound, above `low`.
        theta: start of θ.
        schedule: ξ as a function of the progress within the ramp, both from 0 to 1; it must never fall.
        ramp: share of the training after which the schedule has reached its end, in (0, 1].

    Raises:
        InputError: a bound, the start or the ramp is out of range, or the schedule falls.
    """

    theta: nn.Parameter

    def __init__(
        self,
        low: float,
        high: float,
        theta: float = 1.0,
        schedule: Schedule = cosine_ramp,
        ramp: float = 1.0,
    ) -> None:
        super().__init__()
        check(0 <= low < high < math.inf, "bounds", f"[{low}, {high}]", "0 <= low < high, both finite")
        check(math.isfinite(theta), "theta", theta, "a finite number")
        check(0 < ramp <= 1, "ramp", ramp, "a share of the training in (0, 1]")
        _check_schedule(schedule)
        self.low = float(low)
        self.high = float(high)
        self.schedule = schedule
        self.ramp = float(ramp)
        self.theta = nn.Parameter(torch.tensor(float(theta)))

    @classmethod
    def between_half_and_twice(cls, value: float, *, ramp: float = 1.0) -> Self:
        """A scalar that starts at `value` and stays between its half and its double."""
        check(0 < value < math.inf, "value", value, "a positive number")
        # sigmoid(-log 2) = 1/3 of the way from value/2 to 2·value is value
        return cls(value / 2, value * 2, theta=-math.log(2), ramp=ramp)

    def xi(self, progress: float) -> float:
        """Strength of the reversal at `progress`, the share of the training done."""
        check(0 <= progress <= 1, "progress", progress, "a share of the training in [0, 1]")
        return float(self.schedule(min(progress / self.ramp, 1.0)))

    def value(self, progress: float) -> Tensor:
        """The scalar, 0-dim; its gradient reaches θ multiplied by -ξ."""
        weight = torch.sigmoid(gradient_reversal(self.theta, self.xi(progress)))
        # lerp meets both bounds exactly when the sigmoid saturates
        return torch.lerp(torch.full_like(weight, self.low), torch.full_like(weight, self.high), weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            halved = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if halved else moved

        return super()._apply(keep_precision, recurse)


class ETHT(AdversarialScalar):
    """The temperature τ as an adversarial scalar: aligning the logits becomes harder during training.

    Args:
        tau_min: lower bound of τ, above 0.
        tau_max: upper bound of τ. The paper's 21 comes from image classification; SimCC wants it low.
        theta: start of θ.
        schedule: see `AdversarialScalar`.
        ramp: see `AdversarialScalar`.
        detach_scale: keep the loss's factor τ², which `HeatmapCCA` does not have, out of θ's gradient, which it dominates.

    Raises:
        InputError: a bound, the start or the ramp is out of range, or the schedule falls.

    Example:
        >>> from cdkd_ext.distillation import ETHT
        >>> round(ETHT(1.0, 21.0).tau(0.0).item(), 2)
        15.62
    """

    def __init__(
        self,
        tau_min: float = 1.0,
        tau_max: float = 21.0,
        theta: float = 1.0,
        schedule: Schedule = cosine_ramp,
        ramp: float = 1.0,
        detach_scale: bool = False,
    ) -> None:
        check(0 < tau_min < tau_max, "tau_min, tau_max", f"{tau_min}, {tau_max}", "0 < tau_min < tau_max")
        super().__init__(tau_min, tau_max, theta, schedule, ramp)
        self.detach_scale = detach_scale

    def tau(self, progress: float) -> Tensor:
        """τ, 0-dim, in [tau_min, tau_max]."""
        return self.value(progress)

    def scale(self, tau: Tensor) -> Tensor | float:
        """Factor of value 1 on a loss that carries τ²: with `detach_scale` it cancels τ²'s own gradient."""
        return (tau.detach() / tau) ** 2 if self.detach_scale else 1.0


def _check_schedule(schedule: Schedule) -> None:
    values = [float(schedule(step / 16)) for step in range(17)]
    rising = all(before <= after for before, after in pairwise(values))
    fine = rising and values[0] >= 0 and math.isfinite(values[-1])
    got = f"values from {values[0]:g} to {values[-1]:g}"
    check(fine, "schedule", got, "a function on [0, 1] that is finite, never negative and never falls")
