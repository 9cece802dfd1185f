"""Scale-adaptive unit: how much each projector counts, seen at several receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_type
from cdkd_ext.ops import _fast_path, reference
from cdkd_ext.ops._derivative import Derivative, differentiable, first_order, no_derivative, tangent_of
from cdkd_ext.ops._library import register_fake
from cdkd_ext.ops._mistakes import named
from cdkd_ext.ops._tensors import (
    accumulator_type,
    check_positive,
    check_tensor,
    common_type,
    converted,
    fail_shape,
)
from cdkd_ext.ops._vmap import one_by_one, refuse_batched_gradients, register_vmap


@named
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
        conv_weights: M <= 32 tensors (C, C, k, k), each with its own odd k <= 127.
        norm_weight: (M, C).
        norm_bias: (M, C).
        running_mean: (M, C); moved towards the batch's mean in training, used instead of it otherwise. Gets no
            gradient.
        running_var: (M, C); the same for the unbiased variance (the biased one normalises).
        squeeze_weight: (d, C).
        squeeze_bias: (d,).
        select_weight: (K, C, d).
        select_bias: (K, C).
        training: normalise with the batch's statistics and update the running ones, as BatchNorm does.
        momentum: the batch's share in the new running statistics, in [0, 1].
        eps: added to the variance, positive and finite.

    Returns:
        (B, K, C), Σ_k = 1: float32, or float64 if any input is. A NaN in one sample makes that sample's
        weights NaN; in training all of them, for batch statistics mix the samples.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, an even kernel, an empty axis other than the batch, a single value
            per channel in training, momentum or eps out of range, tensors on different devices; on CUDA, C + d over
            10,240, or in float64 over 4,096.

    Example:
        >>> C, d, K = 17, 32, 3
        >>> convolutions = [torch.randn(C, C, k, k, requires_grad=True) for k in (3, 5, 7, 7)]
        >>> norm = [torch.ones(4, C), torch.zeros(4, C), torch.zeros(4, C), torch.ones(4, C)]
        >>> linear = [torch.randn(d, C), torch.zeros(d), torch.randn(K, C, d), torch.zeros(K, C)]
        >>> select = sau_select(torch.randn(2, C, 8, 8), convolutions, *norm, *linear, training=True)
        >>> select.shape
        torch.Size([2, 3, 17])
    """
    check_type("training", training, bool, "a bool")
    check(0 <= momentum <= 1, "momentum", momentum, "a number in [0, 1]")
    norm = (norm_weight, norm_bias, running_mean, running_var)
    linear = (squeeze_weight, squeeze_bias, select_weight, select_bias)
    wide = accumulator_type(feature, *conv_weights, *norm, *linear)
    narrow = wide if wide == torch.float64 else common_type(feature, *conv_weights)
    selection, mean, variance = _call(
        converted(feature, narrow),
        *[converted(weight, narrow) for weight in conv_weights],
        *[converted(tensor, wide) for tensor in (*norm, *linear)],
        training,
        eps,
    )
    if training and momentum > 0:
        count = feature.numel() // feature.shape[1]
        _move_statistics(running_mean, running_var, mean, variance, count, momentum)
    return selection


_op = torch.ops.cdkd.sau_select.default
_forward = torch.ops.cdkd.sau_select_forward.default


class _SauSelect(Derivative):
    name = "sau_select"
    twin = "sau_select_forward"
    results = 3

    @staticmethod
    def result(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        feature, *conv_weights = args[:-10]
        return _op(feature, conv_weights, *args[-10:-2], training=args[-2], eps=args[-1])

    @staticmethod
    def forward(needs: Sequence[bool], *args: Any) -> tuple[Tensor, ...]:
        feature, *conv_weights = args[:-10]
        return _forward(feature, conv_weights, *args[-10:])

    @staticmethod
    def check(*args: Any) -> None:
        feature, *conv_weights = args[:-10]
        _check(feature, conv_weights, *args[-10:])

    @staticmethod
    def reference(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        feature, *conv_weights = args[:-10]
        return reference.selection_and_statistics(
            feature, conv_weights, *args[-10:-2], training=args[-2], eps=args[-1]
        )

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ctx.training, ctx.eps = inputs[-2:]
        return *_SauSelect.inputs_to_keep(*inputs), *outputs

    @staticmethod
    def inputs_to_keep(*args: Any) -> tuple[Tensor, ...]:
        *inputs, training, _ = args
        if training:  # the running statistics are not read, and move
            inputs[-6:-4] = inputs[-8:-6]
        return tuple(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needs, saved = ctx.needs_input_grad, ctx.saved_tensors
        kept = (*saved[:-12], *saved[-10:])  # without the running statistics
        gradients = _backward(ctx.training, ctx.eps, needs[0], gradient, *kept)
        of_inputs = (*gradients[:-4], None, None, *gradients[-4:])
        return tuple(
            x.to(like.dtype) if need else None for x, like, need in zip(of_inputs, saved, needs, strict=False)
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        inputs = ctx.saved_tensors[:-6]
        return _tangent(ctx.training, ctx.eps, *inputs, *tangents[: len(inputs)])


def _all_gradients(training: bool, eps: float, wants_feature: bool, *args: Tensor) -> tuple[Tensor, ...]:
    gradient, feature, *conv_weights = args[:-12]
    to_feature, to_convolutions, *others = torch.ops.cdkd.sau_select_backward.default(
        gradient, feature, conv_weights, *args[-12:], training, eps, wants_feature
    )
    return to_feature, *to_convolutions, *others


_backward = first_order("sau_select", _all_gradients)


def _selection_tangent(training: bool, eps: float, *args: Any) -> Tensor:
    def selection(*inputs: Tensor) -> Tensor:
        return _SauSelect.reference(*inputs, training, eps)[0]

    count = len(args) // 2
    return tangent_of(selection, args[:count], args[count:])


_tangent = first_order("sau_select", _selection_tangent)


def _move_statistics(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, count: int, momentum: float
) -> None:
    if not (_fast_path.is_plain() or torch.compiler.is_compiling()):
        _Move.apply(running_mean, running_var, mean, variance, count, momentum)
        return
    if torch.compiler.is_compiling() and _fast_path.is_transformed(mean):
        raise RuntimeError(
            "cdkd: sau_select in training does not update running statistics in compiled function transforms; "
            "set momentum=0"
        )
    with torch.no_grad():
        _move(running_mean, running_var, mean, variance, count, momentum)


def _move(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, count: int, momentum: float
) -> Tensor:
    if count > 0:
        unbiased = variance * (count / (count - 1))
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return mean.new_empty(0)


class _Move(torch.autograd.Function):
    """The running statistics' update below the function transforms, which let nobody write to what they do not hold."""

    forward = staticmethod(_move)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        return (None,) * 6

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return torch.zeros(0)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, None]:
        if in_dims[0] is None or in_dims[1] is None:
            raise RuntimeError(
                "cdkd: sau_select in training cannot be mapped over samples that share running statistics; "
                "map running_mean and running_var too, or set momentum=0 or training=False"
            )
        one_by_one(_move)(info, in_dims, *args)
        return args[2].new_empty(0), None


@register_fake("sau_select")
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
    linear = (squeeze_weight, squeeze_bias, select_weight, select_bias)
    _check(feature, conv_weights, norm_weight, norm_bias, running_mean, running_var, *linear, training, eps)
    selection = feature.new_empty(feature.shape[0], *select_bias.shape, dtype=accumulator_type(feature))
    return selection, selection.new_empty(norm_weight.shape), selection.new_empty(norm_weight.shape)


@register_fake("sau_select_forward")
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
    linear = (squeeze_weight, squeeze_bias, select_weight, select_bias)
    norm = (norm_weight, norm_bias, running_mean, running_var)
    selection, mean, variance = _fake(feature, conv_weights, *norm, *linear, training, eps)
    samples, channels, height, width = feature.shape
    branches = len(conv_weights)
    return (
        selection,
        mean,
        variance,
        # samples are worked on side by side: there is room for whole groups of them
        selection.new_empty((samples + 15) // 16 * 16, branches * channels, height, width),
        selection.new_empty(samples, channels),
        selection.new_empty(2, branches, channels, samples),
    )


@register_fake("sau_select_backward")
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


def _check(
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
) -> None:
    _check_feature(feature, training)
    _check_convolutions(conv_weights, feature)
    M, C, wide = len(conv_weights), feature.shape[1], accumulator_type(feature)
    check_tensor("norm_weight", norm_weight, (M, C), like=feature, dtype=wide)
    check_tensor("norm_bias", norm_bias, (M, C), like=feature, dtype=wide)
    check_tensor("squeeze_weight", squeeze_weight, ("d", C), like=feature, dtype=wide)
    d = squeeze_weight.shape[0]
    if d == 0:
        fail_shape("squeeze_weight", squeeze_weight, ("d", C), " with no empty axis")
    check_tensor("squeeze_bias", squeeze_bias, (d,), like=feature, dtype=wide)
    check_tensor("select_weight", select_weight, ("K", C, d), like=feature, dtype=wide)
    K = select_weight.shape[0]
    if K == 0:
        fail_shape("select_weight", select_weight, ("K", C, d), " with no empty axis")
    check_tensor("select_bias", select_bias, (K, C), like=feature, dtype=wide)
    check_positive("eps", eps)
    check_tensor("running_mean", running_mean, (M, C), like=feature, dtype=wide)
    check_tensor("running_var", running_var, (M, C), like=feature, dtype=wide)


def _check_feature(feature: Tensor, training: bool) -> None:
    check_tensor("feature", feature, ("B", "C", "h", "w"))
    B, C, h, w = feature.shape
    if C == 0 or h == 0 or w == 0:
        fail_shape("feature", feature, ("B", "C", "h", "w"), " with no empty axis but the batch")
    if training and B * h * w == 1:
        fail_shape("feature", feature, ("B", "C", "h", "w"), " with several values per channel in training")


def _check_convolutions(conv_weights: Sequence[Tensor], feature: Tensor) -> None:
    C, M = feature.shape[1], len(conv_weights)
    check(0 < M <= _MAX_BRANCHES, "conv_weights", M, f"1 to {_MAX_BRANCHES} tensors")
    for m, weight in enumerate(conv_weights):
        name, sizes = f"conv_weights[{m}]", (C, C, "k", "k")
        check_tensor(name, weight, sizes, like=feature, dtype=feature.dtype)
        height, width = weight.shape[2:]
        if height != width or width % 2 == 0 or width > _MAX_KERNEL:
            fail_shape(name, weight, sizes, f" with an odd k up to {_MAX_KERNEL}")


_MAX_BRANCHES = 32
_MAX_KERNEL = 127

no_derivative("sau_select_backward")
for _name in ("sau_select", "sau_select_forward", "sau_select_backward"):
    register_vmap(_name)
refuse_batched_gradients(
    "sau_select_backward",
    "cdkd: sau_select takes no batch of gradients (is_grads_batched, vectorize=True); use torch.func.jacrev",
)
_call = differentiable(_SauSelect)
