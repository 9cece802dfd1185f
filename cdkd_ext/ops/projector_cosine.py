"""Cosine of the teacher's feature and the student's, brought to the teacher's size by several projectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cdkd_ext._checks import check, check_option, check_tensor, check_type
from cdkd_ext.ops import _library  # noqa: F401  (registers the op)
from cdkd_ext.ops._autograd import accumulator_type, differentiate, first_order_only, no_derivative
from cdkd_ext.ops._tensors import check_same_device, common_type

_Gradients = tuple[Tensor | None, ...]


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
        eps: lower bound of each of the two norms.
        recompute: keep only small sums for the backward pass, which then projects again, a quarter of the
            batch at a time. Otherwise B·C·T floats and the signs of the projections in bits are kept.

    Returns:
        (B,), the cosine of each sample's two features over all channels and positions: float32, or float64 if
        any input is. NaN where a sample holds a NaN. Sums are in this type; features and weights of different
        types are first brought to a common one.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, an empty axis other than the batch, an unknown activation, a
            negative eps, tensors on different devices.
    """
    check_tensor("feature", feature, ("B", "C", "S"))
    samples, channels, positions = feature.shape
    check(channels > 0 and positions > 0, "feature", tuple(feature.shape), "no empty axis but the batch")
    check_tensor("weight", weight, ("K", "T", positions))
    projectors, targets = weight.shape[:2]
    check(projectors > 0 and targets > 0, "weight", tuple(weight.shape), "no empty axis")
    check_tensor("bias", bias, (projectors, targets))
    check_tensor("select", select, (samples, projectors, channels))
    check_tensor("teacher", teacher, (samples, channels, targets))
    check_option("activation", activation, ("relu", "none"))
    check_type("eps", eps, (int, float), "a number")
    check(eps >= 0, "eps", eps, "a number that is not negative")
    for name, tensor in (("weight", weight), ("bias", bias), ("select", select), ("teacher", teacher)):
        check_same_device(name, tensor, feature)

    inputs = (feature, weight, bias, select, teacher)
    wide = accumulator_type(*inputs)
    narrow = wide if wide == torch.float64 else common_type(feature, weight, teacher)
    return _call(
        feature.to(narrow),
        weight.to(narrow),
        bias.to(wide),
        select.to(wide),
        teacher.detach().to(narrow),
        activation=activation,
        eps=eps,
        recompute=recompute,
    )


class _ProjectorCosine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        feature: Tensor,
        weight: Tensor,
        bias: Tensor,
        select: Tensor,
        teacher: Tensor,
        activation: str,
        eps: float,
        recompute: bool,
    ) -> Tensor:
        inputs = (feature, weight, bias, select, teacher)
        keep = not recompute and any(ctx.needs_input_grad[:3])
        cosine, *kept = torch.ops.cdkd.projector_cosine_forward(*inputs, activation, eps, keep)
        ctx.save_for_backward(*inputs, *kept)
        ctx.activation, ctx.eps = activation, eps
        return cosine

    @staticmethod
    @first_order_only
    def backward(ctx: Any, gradient: Tensor) -> _Gradients:
        needs_feature, needs_weight, needs_bias, needs_select = ctx.needs_input_grad[:4]
        to_feature, to_weight, to_bias, to_select = torch.ops.cdkd.projector_cosine_backward(
            gradient, *ctx.saved_tensors, ctx.activation, ctx.eps, needs_feature, needs_weight or needs_bias
        )
        feature, weight = ctx.saved_tensors[:2]
        return (
            to_feature.to(feature.dtype) if needs_feature else None,
            to_weight.to(weight.dtype) if needs_weight else None,
            to_bias if needs_bias else None,
            to_select if needs_select else None,
            *(None,) * 4,
        )


def _apply(
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
    return _ProjectorCosine.apply(feature, weight, bias, select, teacher, activation, eps, recompute)


@torch.library.register_fake("cdkd::projector_cosine")
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
    return feature.new_empty(feature.shape[0], dtype=accumulator_type(feature))


@torch.library.register_fake("cdkd::projector_cosine_forward")
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
    cosine = _fake(feature, weight, bias, select, teacher)
    inner = 0 if feature.is_cuda else 2  # there select's gradient comes with the feature's
    return (
        cosine,
        cosine.new_empty(rows, targets),
        cosine.new_empty(planes, rows, targets, dtype=torch.uint8),
        cosine.new_empty(inner, samples, projectors, channels),
        cosine.new_empty(samples, 3),
    )


@torch.library.register_fake("cdkd::projector_cosine_backward")
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


no_derivative("projector_cosine_forward", "projector_cosine_backward")
_call = differentiate("projector_cosine", _apply)
