"""Scale-adaptive unit: how much each projector counts, seen at several receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cdkd_ext._checks import check, check_tensor, check_type
from cdkd_ext.ops import _library  # noqa: F401  (registers the op)
from cdkd_ext.ops._autograd import accumulator_type, differentiate, first_order_only, no_derivative
from cdkd_ext.ops._tensors import check_same_device, common_type


def sau_select(
    feature: Tensor,
    conv_weights: Sequence[Tensor],
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    select_weight: Tensor,
    select_bias: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Weigh K projectors per channel from M convolutions of the student's feature (CDKD, Eq. 1 and 2).

    u = Σ_m average(ReLU(norm_m(conv_m(feature)))) over the pixels, z = ReLU(squeeze · u), and the result is
    the softmax over k of select_k · z. Convolutions have no bias and a zero padding that keeps the size; norm
    is batch norm.

    Args:
        feature: (B, C, h, w), float32, float64, bfloat16 or float16.
        conv_weights: M tensors (C, C, k, k), each with its own odd k.
        norm_weight: (M, C).
        norm_bias: (M, C).
        running_mean: (M, C); moved towards the batch's mean in training, used instead of it otherwise.
        running_var: (M, C); the same for the unbiased variance (the biased one normalises).
        squeeze_weight: (d, C).
        squeeze_bias: (d,).
        select_weight: (K, C, d).
        select_bias: (K, C).
        training: normalise with the batch's statistics and update the running ones, as BatchNorm does.
        momentum: the batch's share in the new running statistics, in [0, 1].
        eps: added to the variance, positive.

    Returns:
        (B, K, C), Σ_k = 1: float32, or float64 if any input is. A NaN in one sample makes that sample's
        weights NaN; in training all of them, for batch statistics mix the samples.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, an even kernel, an empty axis other than the batch, a single value
            per channel in training, momentum or eps out of range, tensors on different devices.
    """
    check_tensor("feature", feature, ("B", "C", "h", "w"))
    samples, channels, height, width = feature.shape
    check(channels * height * width > 0, "feature", tuple(feature.shape), "no empty axis but the batch")
    check_type("conv_weights", conv_weights, (list, tuple), "a list or tuple of torch.Tensor")
    branches = len(conv_weights)
    check(branches > 0, "conv_weights", "none", "at least one tensor")
    for m, weight in enumerate(conv_weights):
        check_tensor(f"conv_weights[{m}]", weight, (channels, channels, "k", "k"))
        kernel = weight.shape[-1]
        square = weight.shape[-2] == kernel
        check(
            square and kernel % 2 == 1,
            f"conv_weights[{m}]",
            tuple(weight.shape),
            "a square kernel of odd size",
        )
    check_tensor("squeeze_weight", squeeze_weight, ("d", channels))
    hidden = squeeze_weight.shape[0]
    check_tensor("select_weight", select_weight, ("K", channels, hidden))
    projectors = select_weight.shape[0]
    check(hidden > 0, "squeeze_weight", tuple(squeeze_weight.shape), "no empty axis")
    check(projectors > 0, "select_weight", tuple(select_weight.shape), "no empty axis")
    check_tensor("squeeze_bias", squeeze_bias, (hidden,))
    check_tensor("select_bias", select_bias, (projectors, channels))
    norm = {
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    for name, tensor in norm.items():
        check_tensor(name, tensor, (branches, channels))
    linear = {
        "squeeze_weight": squeeze_weight,
        "squeeze_bias": squeeze_bias,
        "select_weight": select_weight,
        "select_bias": select_bias,
    }
    convolutions = {f"conv_weights[{m}]": weight for m, weight in enumerate(conv_weights)}
    for name, tensor in {**convolutions, **norm, **linear}.items():
        check_same_device(name, tensor, feature)
    check(0 <= momentum <= 1, "momentum", momentum, "a number in [0, 1]")
    check(eps > 0, "eps", eps, "a positive number")
    count = samples * height * width
    check(
        not training or count != 1, "feature", tuple(feature.shape), "several values per channel in training"
    )

    wide = accumulator_type(feature, *conv_weights, *norm.values(), *linear.values())
    narrow = wide if wide == torch.float64 else common_type(feature, *conv_weights)
    selection, mean, variance = _call(
        feature.to(narrow),
        [weight.to(narrow) for weight in conv_weights],
        *(tensor.to(wide) for tensor in norm.values()),
        *(tensor.to(wide) for tensor in linear.values()),
        training=training,
        eps=eps,
    )
    if training and count > 0:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return selection


class _SauSelect(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, training: bool, eps: float, feature: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        *conv_weights, norm_weight, norm_bias, mean, var, w0, b0, w1, b1 = parameters
        used = (norm_weight, norm_bias, w0, b0, w1, b1)
        selection, mean, variance, *kept = torch.ops.cdkd.sau_select_forward(
            feature, conv_weights, norm_weight, norm_bias, mean, var, w0, b0, w1, b1, training, eps
        )
        ctx.save_for_backward(feature, *conv_weights, *used, selection, mean, variance, *kept)
        ctx.mark_non_differentiable(mean, variance)
        ctx.training, ctx.eps = training, eps
        return selection, mean, variance

    @staticmethod
    @first_order_only
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        feature, *rest = ctx.saved_tensors
        conv_weights, others = rest[:-12], rest[-12:]
        needs = ctx.needs_input_grad
        to_feature, to_convs, to_norm_weight, to_norm_bias, *to_linear = torch.ops.cdkd.sau_select_backward(
            gradient, feature, conv_weights, *others, ctx.training, ctx.eps, needs[2]
        )
        gradients = (
            to_feature.to(feature.dtype) if needs[2] else None,
            *(to.to(weight.dtype) for to, weight in zip(to_convs, conv_weights, strict=True)),
            to_norm_weight,
            to_norm_bias,
            None,
            None,
            *to_linear,
        )
        return (None, None, *(to if need else None for to, need in zip(gradients, needs[2:], strict=True)))


def _apply(
    feature: Tensor, conv_weights: Sequence[Tensor], *others: Tensor, training: bool, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    return _SauSelect.apply(training, eps, feature, *conv_weights, *others)


@torch.library.register_fake("cdkd::sau_select")
def _fake(
    feature: Tensor,
    conv_weights: Sequence[Tensor],
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    select_weight: Tensor,
    select_bias: Tensor,
    training: bool,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = accumulator_type(feature)
    selection = feature.new_empty(feature.shape[0], *select_bias.shape, dtype=dtype)
    return selection, selection.new_empty(norm_weight.shape), selection.new_empty(norm_weight.shape)


@torch.library.register_fake("cdkd::sau_select_forward")
def _fake_forward(
    feature: Tensor,
    conv_weights: Sequence[Tensor],
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    select_weight: Tensor,
    select_bias: Tensor,
    training: bool,
    eps: float,
) -> tuple[Tensor, ...]:
    samples, channels, height, width = feature.shape
    branches = len(conv_weights)
    selection = feature.new_empty(samples, *select_bias.shape, dtype=accumulator_type(feature))
    # on the CPU samples lie side by side, a cache line of them
    lanes = 1 if feature.is_cuda else 64 // selection.element_size()
    groups = (samples + lanes - 1) // lanes
    return (
        selection,
        selection.new_empty(norm_weight.shape),
        selection.new_empty(norm_weight.shape),
        selection.new_empty(groups, branches * channels, height, width, lanes),
        selection.new_empty(samples, channels),
        selection.new_empty(2, branches, channels, samples),
    )


@torch.library.register_fake("cdkd::sau_select_backward")
def _fake_backward(
    gradient: Tensor,
    feature: Tensor,
    conv_weights: Sequence[Tensor],
    norm_weight: Tensor,
    norm_bias: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    select_weight: Tensor,
    select_bias: Tensor,
    selection: Tensor,
    mean: Tensor,
    variance: Tensor,
    responses: Tensor,
    pooled: Tensor,
    passed: Tensor,
    training: bool,
    eps: float,
    wants_feature: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = gradient
    return (
        like.new_empty(feature.shape[0] if wants_feature else 0, *feature.shape[1:]),
        [like.new_empty(weight.shape) for weight in conv_weights],
        like.new_empty(norm_weight.shape),
        like.new_empty(norm_bias.shape),
        like.new_empty(squeeze_weight.shape),
        like.new_empty(squeeze_bias.shape),
        like.new_empty(select_weight.shape),
        like.new_empty(select_bias.shape),
    )


no_derivative("sau_select_forward", "sau_select_backward")
_call = differentiate("sau_select", _apply)
