"""cca_kl as one writes it in Triton: a program per row, the gradient computed in the forward pass. A competitor only."""

# mypy: disable-error-code="no-untyped-def,unused-ignore"
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def missing() -> str | None:
    """Why it cannot run here, if so."""
    return None if triton is not None else "there is no Triton"


def cca_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher's merged classes ‖ student's) per row at τ = 1, for a whole ratio of class counts.

    Args:
        student: (…, N_s) logits.
        teacher: (…, N_t) logits, N_t a multiple of N_s.

    Returns:
        (…,) float32.
    """
    return _Function.apply(student, teacher)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        classes, bins = student.shape[-1], teacher.shape[-1]
        rows = student.numel() // classes
        loss = torch.empty(student.shape[:-1], dtype=torch.float32, device=student.device)
        gradient = torch.empty_like(student)
        _row[(rows,)](
            student,
            teacher,
            loss,
            gradient,
            classes,
            bins // classes,
            class_block=triton.next_power_of_2(classes),
            ratio_block=triton.next_power_of_2(bins // classes),
        )
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * by_loss[..., None].to(gradient.dtype), None


if triton is not None:

    @triton.jit
    def _row(
        student,
        teacher,
        loss,
        gradient,
        classes,
        ratio,
        class_block: tl.constexpr,
        ratio_block: tl.constexpr,
    ):
        row = tl.program_id(0)
        index = tl.arange(0, class_block)
        within = tl.arange(0, ratio_block)
        used = index < classes
        bins = index[:, None] * ratio + within[None, :]
        bins_used = used[:, None] & (within < ratio)[None, :]
        logits = tl.load(teacher + row * classes * ratio + bins, mask=bins_used, other=-float("inf")).to(
            tl.float32
        )
        exponentials = tl.exp(logits - tl.max(tl.max(logits, 1), 0))
        merged = tl.sum(exponentials, 1)
        merged = merged / tl.sum(merged, 0)
        own = tl.load(student + row * classes + index, mask=used, other=-float("inf")).to(tl.float32)
        own = own - tl.max(own, 0)
        total = tl.sum(tl.exp(own), 0)
        own_log = own - tl.log(total)
        terms = tl.where(merged > 0, merged * (tl.log(merged) - own_log), 0.0)
        tl.store(loss + row, tl.sum(terms, 0))
        difference = tl.exp(own) / total - merged
        tl.store(gradient + row * classes + index, difference.to(gradient.dtype.element_ty), mask=used)
