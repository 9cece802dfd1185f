"""Cross-class alignment: a student learns from a teacher that has more classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cdkd_ext._checks import check_option, fail
from cdkd_ext.ops import _library  # noqa: F401  (registers the op)
from cdkd_ext.ops._autograd import accumulator_type, differentiate, first_order_only, no_derivative
from cdkd_ext.ops._tensors import as_scalar, check_positive, check_rows, check_same_device, checked


def _check(
    student_logits: Tensor, teacher_logits: Tensor, tau: float | Tensor, *, phase: str = "paper"
) -> None:
    check_rows("student_logits", student_logits)
    check_rows("teacher_logits", teacher_logits)
    *rows, classes = student_logits.shape
    *teacher_rows, bins = teacher_logits.shape
    if teacher_rows != rows:
        fail("teacher_logits", tuple(teacher_logits.shape), f"shape ({', '.join(map(str, rows))}, bins)")
    if bins < classes:
        fail("teacher_logits", f"{bins} bins", f"at least the student's {classes} bins")
    check_option("phase", phase, ("paper", "centered"))
    check_same_device("teacher_logits", teacher_logits, student_logits)
    check_positive("tau", tau, student_logits)


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
    """
    return checked(_check, _run, student_logits, teacher_logits, tau, phase=phase)


def _run(student_logits: Tensor, teacher_logits: Tensor, tau: float | Tensor, *, phase: str) -> Tensor:
    return _call(student_logits, teacher_logits, as_scalar(tau, student_logits), phase=phase)


_gradients = torch.ops.cdkd.cca_kl_gradients.default
_backward = torch.ops.cdkd.cca_kl_backward.default


class _CcaKl(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str) -> Tensor:
        loss, student_gradient, tau_gradient = _gradients(
            student_logits, teacher_logits, tau, phase, ctx.needs_input_grad[2]
        )
        ctx.save_for_backward(student_gradient, tau_gradient)
        ctx.tau_shape, ctx.tau_dtype = tau.shape, tau.dtype
        return loss

    @staticmethod
    @first_order_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        student_gradient, tau_gradient = _backward(gradient, *ctx.saved_tensors)
        needs_student, _, needs_tau, _ = ctx.needs_input_grad
        return (
            student_gradient if needs_student else None,
            None,
            tau_gradient.to(ctx.tau_dtype).reshape(ctx.tau_shape) if needs_tau else None,
            None,
        )


def _apply(student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, *, phase: str = "paper") -> Tensor:
    return _CcaKl.apply(student_logits, teacher_logits, tau, phase)


@torch.library.register_fake("cdkd::cca_kl")
def _fake(student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str = "paper") -> Tensor:
    return student_logits.new_empty(
        student_logits.shape[:-1], dtype=accumulator_type(student_logits, teacher_logits)
    )


@torch.library.register_fake("cdkd::cca_kl_gradients")
def _fake_gradients(
    student_logits: Tensor, teacher_logits: Tensor, tau: Tensor, phase: str, wants_tau: bool
) -> tuple[Tensor, Tensor, Tensor]:
    loss = _fake(student_logits, teacher_logits, tau)
    student_gradient = student_logits.new_empty(student_logits.shape)
    return loss, student_gradient, loss.new_empty(loss.shape if wants_tau else (0,))


@torch.library.register_fake("cdkd::cca_kl_backward")
def _fake_backward(gradient: Tensor, student_gradient: Tensor, tau_gradient: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(student_gradient), tau_gradient.new_empty((), dtype=torch.float64)


no_derivative("cca_kl_gradients", "cca_kl_backward")
_call = differentiate("cca_kl", _apply)
