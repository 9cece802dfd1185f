"""Cross-class alignment: a student learns from a teacher that has other classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_option, check_type
from cdkd_ext.ops import reference
from cdkd_ext.ops._derivative import Derivative, differentiable, first_order, no_derivative
from cdkd_ext.ops._library import register_fake
from cdkd_ext.ops._mistakes import named
from cdkd_ext.ops._tensors import (
    accumulator_type,
    as_scalar,
    check_bins,
    check_device,
    check_dtype,
    check_tensor,
    detached,
    fail_shape,
)
from cdkd_ext.ops._vmap import as_rows, one_by_one, register_vmap


@named
def cca_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tau: float | Tensor,
    *,
    phase: str = "paper",
    offset: float | None = None,
    weights: Tensor | None = None,
    probabilities: bool = False,
) -> Tensor:
    """Align the student's classes with the teacher's (CDKD, Eq. 6 and 7).

    The teacher's probabilities softmax(z_t / τ) of N_t bins are merged into the student's N_s classes, and
    each row's loss is τ² · KL(merged ‖ softmax(z_s / τ)). Any two counts fit: with m = N_t / N_s, class j takes the
    teacher's mass in [j·m - offset, (j + 1)·m - offset), where bin i is spread evenly over [i, i + 1). What an offset
    leaves outside goes to the first and the last class.

    Args:
        student_logits: (…, N_s), float32, float64, bfloat16 or float16.
        teacher_logits: (…, N_t) with the same leading sizes; may be of another floating type. Gets no gradient.
        tau: temperature, positive: a number or a tensor of one element, which then gets a gradient. `torch.compile` compiles
            anew for another number, and for a tensor's other value does not.
        phase: "paper" is an offset of 0 (Eq. 6); "centered" one of (m - 1) / 2, negative where m < 1, so that a
            class's bins are centred on the class's own coordinate.
        offset: how far the intervals are moved down, in teacher bins: any finite number, instead of `phase`.
        weights: (…,) factors on the rows, of a floating type; None for ones. A row of weight 0 is not read, whatever
            it holds: its loss and its gradient are exactly 0. Others are plain factors, negative ones too, and NaN
            makes the row NaN. Get no gradient.
        probabilities: the teacher's rows hold probabilities p >= 0 that need not sum to one, and p^(1/τ) takes the
            place of exp(z_t / τ): the same as logits log p, without an infinity at p = 0.

    Returns:
        The loss of each row, (…,): float32, or float64 if the student or the teacher is. Infinite where the student
        excludes (-inf) what the teacher does not; NaN where a row holds a NaN, a negative probability or no positive
        one.

        In float32 the factor τ² magnifies what the divergence rounds to: a temperature of 100 costs three digits, and one of
        thousands all of them, where float64 logits have enough.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, tau <= 0 (NaN instead, where a tensor's value is traced or on a GPU), an unknown
            phase, an offset that is not finite or given beside the phase "centered", tensors on different devices.

    Example:
        >>> student = torch.randn(2, 17, 48, requires_grad=True)
        >>> loss = cca_kl(student, torch.randn(2, 17, 192), 4.0)
        >>> loss.shape
        torch.Size([2, 17])
        >>> loss.mean().backward()
        >>> marginals = torch.rand(2, 17, 16)  # a heatmap's, summed over one axis
        >>> cca_kl(student, marginals, 1.0, offset=-0.125, weights=torch.rand(2, 17), probabilities=True).shape
        torch.Size([2, 17])
    """
    if probabilities is not False:
        # torch takes None for a bool
        check_type("probabilities", probabilities, bool, "a bool")
    scalar = as_scalar("tau", tau, student_logits)
    fixed = None if weights is None else detached(weights)
    return _call(student_logits, detached(teacher_logits), scalar, fixed, phase, offset, probabilities)


_op = torch.ops.cdkd.cca_kl.default
_gradients = torch.ops.cdkd.cca_kl_gradients.default
_backward = first_order("cca_kl", torch.ops.cdkd.cca_kl_backward.default)


class _CcaKl(Derivative):
    name = "cca_kl"
    twin = "cca_kl_gradients"

    @staticmethod
    def result(
        student_logits: Tensor,
        teacher_logits: Tensor,
        tau: Tensor,
        weights: Tensor | None,
        phase: str,
        offset: float | None,
        probabilities: bool,
    ) -> Tensor:
        # only what is not the schema's default: torch parses each, which a call of one row notices
        options: dict[str, Any] = {} if phase == "paper" else {"phase": phase}
        if offset is not None:
            options["offset"] = offset
        if probabilities:
            options["probabilities"] = probabilities
        return _op(student_logits, teacher_logits, tau, weights, **options)

    @staticmethod
    def forward(needs: Sequence[bool], *args: Any) -> tuple[Tensor, ...]:
        return _gradients(*args, needs[2])

    @staticmethod
    def check(*args: Any) -> None:
        _check(*args[:-1])

    @staticmethod
    def reference(
        student_logits: Tensor,
        teacher_logits: Tensor,
        tau: Tensor,
        weights: Tensor | None,
        phase: str,
        offset: float | None,
        probabilities: bool,
    ) -> Tensor:
        return reference.cca_kl(
            student_logits,
            teacher_logits,
            torch.where((tau > 0) & (tau < math.inf), tau, math.nan),  # a traced value cannot be refused
            phase=phase,
            offset=offset,
            weights=weights,
            probabilities=probabilities,
        )

    @staticmethod
    def inputs_to_keep(*args: Any) -> tuple[Tensor, ...]:
        return args[:4]  # with a None in place of weights

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ctx.tau_shape, ctx.tau_dtype = inputs[2].shape, inputs[2].dtype
        return outputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        student_gradient, tau_gradient = _backward(gradient, *ctx.saved_tensors)
        needs = ctx.needs_input_grad
        return (
            student_gradient if needs[0] else None,
            None,
            tau_gradient.to(ctx.tau_dtype).reshape(ctx.tau_shape) if needs[2] else None,
        )

    @staticmethod
    def jvp(ctx: Any, student: Tensor | None, teacher: None, tau: Tensor | None, *_: None) -> Tensor:
        return _tangent(*ctx.saved_tensors, student, tau)


def _loss_tangent(
    student_gradient: Tensor, tau_gradient: Tensor, student: Tensor | None, tau: Tensor | None
) -> Tensor:
    tangent = torch.zeros_like(tau_gradient)
    if student is not None:
        tangent = tangent + (student_gradient.to(tangent.dtype) * student).sum(-1)
    if tau is not None:
        tangent = tangent + tau_gradient * tau.reshape(()).to(tangent.dtype)
    return tangent


_tangent = first_order("cca_kl", _loss_tangent)


@register_fake("cca_kl")
def _fake(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tau: Tensor,
    weights: Tensor | None = None,
    phase: str = "paper",
    offset: float | None = None,
    probabilities: bool = False,
) -> Tensor:
    _check(student_logits, teacher_logits, tau, weights, phase, offset)
    return student_logits.new_empty(
        student_logits.shape[:-1], dtype=accumulator_type(student_logits, teacher_logits)
    )


@register_fake("cca_kl_gradients")
def _fake_gradients(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    student_logits, wants_tau = args[0], args[-1]
    loss = _fake(*args[:-1])
    student_gradient = student_logits.new_empty(student_logits.shape)
    return loss, student_gradient, loss.new_empty(loss.shape if wants_tau else (0,))


@register_fake("cca_kl_backward")
def _fake_backward(gradient: Tensor, student_gradient: Tensor, tau_gradient: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(student_gradient), tau_gradient.new_empty((), dtype=torch.float64)


def _check(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tau: Tensor,
    weights: Tensor | None,
    phase: str,
    offset: float | None,
) -> None:
    check_bins("student_logits", student_logits)
    check_device("teacher_logits", teacher_logits, student_logits)
    check_bins("teacher_logits", teacher_logits)
    rows = student_logits.shape[:-1]
    if teacher_logits.shape[:-1] != rows:
        fail_shape("teacher_logits", teacher_logits, (*rows, "bins"))
    check_device("tau", tau, student_logits)
    check_dtype("tau", tau)
    check(tau.numel() == 1, "tau", tau.numel(), "one element")
    check_option("phase", phase, ("paper", "centered"))
    if offset is not None:
        check(-math.inf < offset < math.inf, "offset", offset, "a finite number of teacher bins")
        check(phase == "paper", "offset", offset, "None with phase 'centered'")
    if weights is not None:
        check_tensor("weights", weights, student_logits.shape[:-1], like=student_logits)


def _map_rows(op: Any) -> Any:
    """Rule of vmap: one call, unless each sample has a temperature of its own."""
    rows, single = as_rows(op, also=(3,)), one_by_one(op)

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any, **options: Any) -> tuple[Any, Any]:
        chosen = rows if in_dims[2] is None and info.batch_size > 0 else single
        return chosen(info, in_dims, *args, **options)

    return rule


no_derivative("cca_kl_backward")
for _name in ("cca_kl", "cca_kl_gradients"):
    register_vmap(_name, _map_rows(getattr(torch.ops.cdkd, _name).default))
register_vmap("cca_kl_backward")
_call = differentiable(_CcaKl)
