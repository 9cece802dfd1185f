"""SimCC's own loss, without one-hot or Gaussian targets in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.errors import check
from cdkd_ext.ops import reference
from cdkd_ext.ops._derivative import Derivative, differentiable, first_order, no_derivative
from cdkd_ext.ops._library import register_fake
from cdkd_ext.ops._mistakes import named
from cdkd_ext.ops._tensors import accumulator_type, check_bins, check_positive, check_tensor, detached
from cdkd_ext.ops._vmap import as_rows, register_vmap


@named
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
        target makes its loss and gradient NaN. Infinite where the logits exclude (-inf) what the target does not.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, label_smoothing or sigma out of range, different devices.

    Example:
        >>> logits = torch.randn(2, 17, 48, requires_grad=True)
        >>> x = torch.rand(2, 17) * 24  # pixels, of a crop 24 wide
        >>> loss = simcc_kl(logits, 2.0 * x, label_smoothing=0.1)
        >>> loss.shape
        torch.Size([2, 17])
        >>> loss.mean().backward()
    """
    return _call(logits, detached(target), label_smoothing, sigma)


_op = torch.ops.cdkd.simcc_kl.default
_gradients = torch.ops.cdkd.simcc_kl_gradients.default
_backward = first_order("simcc_kl", torch.ops.cdkd.simcc_kl_backward.default)


class _SimccKl(Derivative):
    name = "simcc_kl"
    twin = "simcc_kl_gradients"

    @staticmethod
    def result(logits: Tensor, target: Tensor, label_smoothing: float, sigma: float | None) -> Tensor:
        return _op(logits, target, label_smoothing=label_smoothing, sigma=sigma)

    @staticmethod
    def forward(needs: Sequence[bool], *args: Any) -> tuple[Tensor, ...]:
        return _gradients(*args)

    @staticmethod
    def check(*args: Any) -> None:
        _check(*args)

    @staticmethod
    def reference(logits: Tensor, target: Tensor, label_smoothing: float, sigma: float | None) -> Tensor:
        return reference.simcc_kl(logits, target, label_smoothing=label_smoothing, sigma=sigma)

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return outputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (_backward(gradient, *ctx.saved_tensors) if ctx.needs_input_grad[0] else None,)

    @staticmethod
    def jvp(ctx: Any, logits: Tensor | None, *_: None) -> Tensor:
        return _tangent(*ctx.saved_tensors, logits)


def _loss_tangent(logits_gradient: Tensor, logits: Tensor | None) -> Tensor:
    dtype = accumulator_type(logits_gradient)
    if logits is None:
        return torch.zeros_like(logits_gradient[..., 0], dtype=dtype)
    return (logits_gradient.to(dtype) * logits).sum(-1)


_tangent = first_order("simcc_kl", _loss_tangent)


@register_fake("simcc_kl")
def _fake(logits: Tensor, target: Tensor, label_smoothing: float = 0.0, sigma: float | None = None) -> Tensor:
    _check(logits, target, label_smoothing, sigma)
    return logits.new_empty(logits.shape[:-1], dtype=accumulator_type(logits))


@register_fake("simcc_kl_gradients")
def _fake_gradients(
    logits: Tensor, target: Tensor, label_smoothing: float, sigma: float | None
) -> tuple[Tensor, Tensor]:
    return _fake(logits, target, label_smoothing, sigma), logits.new_empty(logits.shape)


@register_fake("simcc_kl_backward")
def _fake_backward(gradient: Tensor, logits_gradient: Tensor) -> Tensor:
    return logits_gradient.new_empty(logits_gradient.shape)


def _check(logits: Tensor, target: Tensor, label_smoothing: float, sigma: float | None) -> None:
    check_bins("logits", logits)
    check_tensor("target", target, logits.shape[:-1], like=logits)
    check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "a number in [0, 1)")
    if sigma is not None:
        check_positive("sigma", sigma, " of bins")
        check(label_smoothing == 0, "label_smoothing", label_smoothing, "0 with a Gaussian target")


no_derivative("simcc_kl_backward")
for _name in ("simcc_kl", "simcc_kl_gradients", "simcc_kl_backward"):
    register_vmap(_name, as_rows(getattr(torch.ops.cdkd, _name).default))
_call = differentiable(_SimccKl)
