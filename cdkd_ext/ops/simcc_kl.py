"""SimCC's own loss, without one-hot or Gaussian targets in memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cdkd_ext._checks import check, check_type, fail
from cdkd_ext.ops import _library  # noqa: F401  (registers the op)
from cdkd_ext.ops._autograd import accumulator_type, differentiate, first_order_only, no_derivative
from cdkd_ext.ops._tensors import check_floating, check_rows, check_same_device, checked


def _check(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, sigma: float | None = None
) -> None:
    check_rows("logits", logits)
    check_floating("target", target)
    if target.shape != logits.shape[:-1]:
        fail("target", tuple(target.shape), f"shape {tuple(logits.shape[:-1])}")
    check_same_device("target", target, logits)
    check_type("label_smoothing", label_smoothing, (int, float), "a number")
    check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "a number in [0, 1)")
    if sigma is not None:
        check_type("sigma", sigma, (int, float), "a number or None")
        check(0 < sigma < math.inf, "sigma", sigma, "a positive finite number of bins")
        check(label_smoothing == 0, "label_smoothing", label_smoothing, "0 with a Gaussian target")


def simcc_kl(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, sigma: float | None = None
) -> Tensor:
    """Classify the coordinate of one axis: Σ t·(log t - log p) over the bins of each row (SimCC).

    A hard label is the target rounded half to even: t is 1 - s there and s / (N - 1) elsewhere. With `sigma`
    t is a Gaussian density around the target, which is not renormalised. Divide by N for the mean over bins.

    Args:
        logits: (…, N), float32, float64, bfloat16 or float16.
        target: (…,) coordinates in bins (pixel times split ratio), of a floating type. Gets no gradient.
        label_smoothing: s, in [0, 1); 0 with a Gaussian target.
        sigma: width of the Gaussian in bins; None for hard labels.

    Returns:
        The loss of each row, (…,): float32, or float64 if the logits are. A row whose rounded target lies
        outside [0, N) has loss 0 and no gradient, whatever its logits hold; else a NaN in a row or in its
        target makes its loss and gradient NaN.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, label_smoothing or sigma out of range, different devices.
    """
    return checked(_check, _call, logits, target, label_smoothing=label_smoothing, sigma=sigma)


_gradients = torch.ops.cdkd.simcc_kl_gradients.default
_backward = torch.ops.cdkd.simcc_kl_backward.default


class _SimccKl(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, label_smoothing: float, sigma: float | None
    ) -> Tensor:
        loss, logits_gradient = _gradients(logits, target, label_smoothing, sigma)
        ctx.save_for_backward(logits_gradient)
        return loss

    @staticmethod
    @first_order_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needs_logits = ctx.needs_input_grad[0]
        scaled = _backward(gradient, *ctx.saved_tensors) if needs_logits else None
        return scaled, None, None, None


def _apply(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, sigma: float | None = None
) -> Tensor:
    return _SimccKl.apply(logits, target, label_smoothing, sigma)


@torch.library.register_fake("cdkd::simcc_kl")
def _fake(logits: Tensor, target: Tensor, label_smoothing: float = 0.0, sigma: float | None = None) -> Tensor:
    return logits.new_empty(logits.shape[:-1], dtype=accumulator_type(logits))


@torch.library.register_fake("cdkd::simcc_kl_gradients")
def _fake_gradients(
    logits: Tensor, target: Tensor, label_smoothing: float, sigma: float | None
) -> tuple[Tensor, Tensor]:
    return _fake(logits, target), logits.new_empty(logits.shape)


@torch.library.register_fake("cdkd::simcc_kl_backward")
def _fake_backward(gradient: Tensor, logits_gradient: Tensor) -> Tensor:
    return logits_gradient.new_empty(logits_gradient.shape)


no_derivative("simcc_kl_gradients", "simcc_kl_backward")
_call = differentiate("simcc_kl", _apply)
