"""Cross-class alignment: a student learns from a teacher that has more classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_option
from cdkd_ext.ops import reference
from cdkd_ext.ops._derivative import Derivative, differentiable, first_order, no_derivative
from cdkd_ext.ops._mistakes import named
from cdkd_ext.ops._tensors import (
    accumulator_type,
    as_scalar,
    check_bins,
    check_device,
    check_dtype,
    fail_shape,
)
from cdkd_ext.ops._vmap import as_rows, one_by_one, register_vmap


@named
def cca_kl(
    student_logits: Tensor, teacher_logits: Tensor, tau: float | Tensor, *, phase: str = "paper"
) -> Tensor:
    """Align the student's classes with the teacher's finer ones (CDKD, Eq. 6 and 7).

    The teacher's probabilities softmax(z_t / τ) of N_t bins are merged into the student's N_s classes, and
    each row's loss is τ² · KL(merged ‖ softmax(z_s / τ)). The ratio N_t / N_s need not be an integer.

    Args:
        student_logits: (…, N_s), float32, float64, bfloat16 or float16.
        teacher_logits: (…, N_t) with N_t >= N_s and the same leading sizes; may be of another floating type.
            Gets no gradient.
        tau: temperature, positive: a number or a tensor of one element, which then gets a gradient.
        phase: "paper" merges bins [j·m, (j + 1)·m) into class j (Eq. 6); "centered" moves these intervals
            down by (m - 1) / 2, so that a class's bins are centred on the class's own coordinate.

    Returns:
        The loss of each row, (…,): float32, or float64 if either input is. Infinite where the student
        excludes (-inf) what the teacher does not; NaN where a row holds a NaN.

    Raises:
        TypeError: something is no tensor, or not of a floating type.
        ValueError: shapes that do not fit, tau <= 0, an unknown phase, tensors on different devices.

    Example:
        >>> student = torch.randn(2, 17, 48, requires_grad=True)
        >>> loss = cca_kl(student, torch.randn(2, 17, 192), 4.0)
        >>> loss.shape
        torch.Size([2, 17])
        >>> loss.mean().backward()
    """
    return _call(student_logits, teacher_logits, as_scalar("tau", tau, student_logits), phase)


_op = torch.ops.cdkd.cca_kl.default
_gradients = torch.ops.cdkd.cca_kl_gradients.default
_backward = first_order("cca_kl", torch.ops.cdkd.cca_kl_backward.default)


class _CcaKl(Derivative):
    name = "cca_kl"
    twin = "cca_kl_gradients"

    @staticmethod
    def result(student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str) -> Tensor:
        return _op(student_logits, teacher_logits, tau, phase=phase)

    @staticmethod
    def forward(
        needs: Sequence[bool], student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str
    ) -> tuple[Tensor, ...]:
        return _gradients(student_logits, teacher_logits, tau, phase, needs[2])

    @staticmethod
    def reference(student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str) -> Tensor:
        return reference.cca_kl(student_logits, teacher_logits, tau, phase=phase)

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
    def jvp(ctx: Any, student: Tensor | None, teacher: None, tau: Tensor | None, phase: None) -> Tensor:
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


@torch.library.register_fake("cdkd::cca_kl")
def _fake(student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str = "paper") -> Tensor:
    _check(student_logits, teacher_logits, tau, phase)
    return student_logits.new_empty(
        student_logits.shape[:-1], dtype=accumulator_type(student_logits, teacher_logits)
    )


@torch.library.register_fake("cdkd::cca_kl_gradients")
def _fake_gradients(
    student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str, wants_tau: bool
) -> tuple[Tensor, Tensor, Tensor]:
    loss = _fake(student_logits, teacher_logits, tau, phase)
    student_gradient = student_logits.new_empty(student_logits.shape)
    return loss, student_gradient, loss.new_empty(loss.shape if wants_tau else (0,))


@torch.library.register_fake("cdkd::cca_kl_backward")
def _fake_backward(gradient: Tensor, student_gradient: Tensor, tau_gradient: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(student_gradient), tau_gradient.new_empty((), dtype=torch.float64)


def _check(student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str) -> None:
    check_bins("student_logits", student_logits)
    check_device("teacher_logits", teacher_logits, student_logits)
    check_bins("teacher_logits", teacher_logits)
    *rows, classes = student_logits.shape
    *teacher_rows, bins = teacher_logits.shape
    if teacher_rows != rows:
        fail_shape("teacher_logits", teacher_logits, (*rows, "bins"))
    check(bins >= classes, "teacher_logits", f"{bins} bins", f"at least the student's {classes} bins")
    check_device("tau", tau, student_logits)
    check_dtype("tau", tau)
    check(tau.numel() == 1, "tau", tau.numel(), "one element")
    check_option("phase", phase, ("paper", "centered"))


def _map_rows(op: Any) -> Any:
    """Rule of vmap: one call, unless each sample has a temperature of its own."""
    rows, single = as_rows(op), one_by_one(op)

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any, **options: Any) -> tuple[Any, Any]:
        chosen = rows if in_dims[2] is None and info.batch_size > 0 else single
        return chosen(info, in_dims, *args, **options)

    return rule


no_derivative("cca_kl_backward")
for _name in ("cca_kl", "cca_kl_gradients"):
    register_vmap(_name, _map_rows(getattr(torch.ops.cdkd, _name).default))
register_vmap("cca_kl_backward")
_call = differentiable(_CcaKl)
