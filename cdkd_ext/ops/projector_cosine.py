"""Cosine of the teacher's feature and the student's, brought to the teacher's size by several projectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_option, check_type
from cdkd_ext.ops import reference
from cdkd_ext.ops._derivative import Derivative, differentiable, first_order, no_derivative, tangent_of
from cdkd_ext.ops._library import register_fake
from cdkd_ext.ops._mistakes import named
from cdkd_ext.ops._tensors import accumulator_type, check_tensor, common_type, converted, fail_shape
from cdkd_ext.ops._vmap import register_vmap


@named
def projector_cosine(
    feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    select: Tensor,
    teacher: Tensor,
    *,
    activation: str = "relu",
    eps: float = 1e-8,
    recompute: bool = False,
) -> Tensor:
    """Compare Σ_k select_k · activation(feature · W_kᵀ + b_k) with the teacher's feature (CDKD, Eq. 3 to 5).

    The K projected maps are never in memory: they are computed and summed in tiles that stay in cache.

    Args:
        feature: (B, C, S), the student's feature over its S positions; float32, float64, bfloat16 or float16.
        weight: (K, T, S), one linear map per projector, shared by the channels.
        bias: (K, T).
        select: (B, K, C), the weight of each projector, as `sau_select` gives it.
        teacher: (B, C, T), the teacher's feature over its T positions. Gets no gradient.
        activation: "relu" or "none".
        eps: lower bound of each of the two norms, finite.
        recompute: keep only small sums for the backward pass, which then projects again, a quarter of the
            batch at a time. Otherwise B·C·T floats and the signs of the projections in bits are kept.

    Returns:
        (B,), the cosine of each sample's two features over all channels and positions: float32, or float64 if
        any input is. NaN where a sample holds a NaN. Sums are in this type; features and weights of different
        types are first brought to a common one.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, an empty axis other than the batch, an unknown activation, a
            negative or infinite eps, tensors on different devices.

    Example:
        >>> feature = torch.randn(2, 17, 64, requires_grad=True)  # 8 x 8 positions
        >>> weight, bias = torch.randn(3, 256, 64), torch.zeros(3, 256)
        >>> select = torch.full((2, 3, 17), 1 / 3)
        >>> cosine = projector_cosine(feature, weight, bias, select, torch.randn(2, 17, 256))
        >>> cosine.shape
        torch.Size([2])
        >>> (1 - cosine).mean().backward()
    """
    check_type("recompute", recompute, bool, "a bool")
    wide = accumulator_type(feature, weight, bias, select, teacher)
    narrow = wide if wide == torch.float64 else common_type(feature, weight, teacher)
    return _call(
        converted(feature, narrow),
        converted(weight, narrow),
        converted(bias, wide),
        converted(select, wide),
        converted(teacher.detach(), narrow),
        activation,
        eps,
        recompute,
    )


_op = torch.ops.cdkd.projector_cosine.default
_forward = torch.ops.cdkd.projector_cosine_forward.default
_backward = first_order("projector_cosine", torch.ops.cdkd.projector_cosine_backward.default)


class _ProjectorCosine(Derivative):
    name = "projector_cosine"
    twin = "projector_cosine_forward"

    @staticmethod
    def result(*args: Any) -> Tensor:
        *inputs, activation, eps, recompute = args
        return _op(*inputs, activation=activation, eps=eps, recompute=recompute)

    @staticmethod
    def forward(needs: Sequence[bool], *args: Any) -> tuple[Tensor, ...]:
        *others, recompute = args
        return _forward(*others, not recompute and any(needs[:3]))

    @staticmethod
    def check(*args: Any) -> None:
        _check(*args[:-1])

    @staticmethod
    def reference(*args: Any) -> Tensor:
        *inputs, activation, eps, _ = args
        return reference.projector_cosine(*inputs, activation=activation, eps=eps)

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ctx.activation, ctx.eps = inputs[5:7]
        return *inputs[:5], *outputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needs_feature, needs_weight, needs_bias, needs_select = ctx.needs_input_grad[:4]
        saved = ctx.saved_tensors
        to_feature, to_weight, to_bias, to_select = _backward(
            gradient, *saved, ctx.activation, ctx.eps, needs_feature, needs_weight or needs_bias
        )
        return (
            to_feature.to(saved[0].dtype) if needs_feature else None,
            to_weight.to(saved[1].dtype) if needs_weight else None,
            to_bias if needs_bias else None,
            to_select if needs_select else None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _tangent(ctx.activation, ctx.eps, *ctx.saved_tensors[:5], *tangents[:4])


def _cosine_tangent(activation: str, eps: float, *args: Any) -> Tensor:
    def cosine(*inputs: Tensor) -> Tensor:
        return _ProjectorCosine.reference(*inputs, args[4], activation, eps, False)

    return tangent_of(cosine, args[:4], args[5:])


_tangent = first_order("projector_cosine", _cosine_tangent)


@register_fake("projector_cosine")
def _fake(
    feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    select: Tensor,
    teacher: Tensor,
    activation: str = "relu",
    eps: float = 1e-8,
    recompute: bool = False,
) -> Tensor:
    _check(feature, weight, bias, select, teacher, activation, eps)
    return feature.new_empty(feature.shape[0], dtype=accumulator_type(feature))


@register_fake("projector_cosine_forward")
def _fake_forward(
    feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    select: Tensor,
    teacher: Tensor,
    activation: str,
    eps: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    samples, channels, _ = feature.shape
    projectors, targets, _ = weight.shape
    rows = samples * channels if keep else 0
    planes = (projectors + 7) // 8 if activation == "relu" else 0
    cosine = _fake(feature, weight, bias, select, teacher, activation, eps)
    return (
        cosine,
        cosine.new_empty(rows, targets),
        cosine.new_empty(planes, rows, targets, dtype=torch.uint8),
        cosine.new_empty(2, samples, projectors, channels),
        cosine.new_empty(samples, 3),
    )


@register_fake("projector_cosine_backward")
def _fake_backward(
    gradient: Tensor,
    feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    select: Tensor,
    teacher: Tensor,
    projected: Tensor,
    active: Tensor,
    inner: Tensor,
    products: Tensor,
    activation: str,
    eps: float,
    wants_feature: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, channels, positions = feature.shape
    projectors, targets, _ = weight.shape
    return (
        bias.new_empty(samples if wants_feature else 0, channels, positions),
        bias.new_empty(projectors if wants_weight else 0, targets, positions),
        bias.new_empty(projectors if wants_weight else 0, targets),
        select.new_empty(select.shape),
    )


def _check(
    feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    select: Tensor,
    teacher: Tensor,
    activation: str,
    eps: float,
) -> None:
    check_tensor("feature", feature, ("B", "C", "S"))
    B, C, S = feature.shape
    if C == 0 or S == 0:
        fail_shape("feature", feature, ("B", "C", "S"), " with no empty axis but the batch")
    check_tensor("weight", weight, ("K", "T", S), like=feature, dtype=feature.dtype)
    K, T, _ = weight.shape
    if K == 0 or T == 0:
        fail_shape("weight", weight, ("K", "T", S), " with no empty axis")
    wide = accumulator_type(feature)
    check_tensor("bias", bias, (K, T), like=feature, dtype=wide)
    check_tensor("select", select, (B, K, C), like=feature, dtype=wide)
    check_tensor("teacher", teacher, (B, C, T), like=feature, dtype=feature.dtype)
    check_option("activation", activation, ("relu", "none"))
    check(0 <= eps < math.inf, "eps", eps, "a finite number that is not negative")


no_derivative("projector_cosine_backward")
for _name in ("projector_cosine", "projector_cosine_forward", "projector_cosine_backward"):
    register_vmap(_name)
_call = differentiable(_ProjectorCosine)
