"""Cross-class alignment: merge the teacher's classes, compare with the student's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness.benchmark import Bench
from bench.harness.case import (
    COMPILED,
    EAGER,
    OURS,
    Case,
    Setup,
    compiled,
    few,
    grid,
    growth,
    run_with,
    smallest,
    total_bytes,
)
from bench.harness.goals import Goal, at, faster_than, near_floor, one_sample
from bench.harness.limits import floor
from bench.harness.run import main
from cdkd_ext import ops
from cdkd_ext.ops import reference

STUDENT_64 = {"batch": 64, "joints": 17, "bins": 768, "classes": 192}  # 256 and 64 pixels, 3 bins each
CELLS = {"batch": 64, "joints": 17, "bins": 64, "classes": 192}  # of a heatmap, and 64 pixels, 3 bins each
WEIGHTED = "a heatmap's cells, weighted"
STUDENT_32 = {"batch": 64, "joints": 17, "bins": 512, "classes": 64}  # 2 bins each


def ours(student: Tensor, teacher: Tensor) -> Tensor:
    """The compiled op."""
    return ops.cca_kl(student, teacher, 1.0)


def eager(student: Tensor, teacher: Tensor) -> Tensor:
    """The reference, which merges any two class counts with a matrix."""
    return reference.cca_kl(student, teacher, 1.0)


def sums(student: Tensor, teacher: Tensor) -> Tensor:
    """What one writes for a whole ratio: reshape, sum, F.kl_div."""
    classes = student.shape[-1]
    merged = teacher.float().softmax(-1).unflatten(-1, (classes, -1)).sum(-1)
    return F.kl_div(student.float().log_softmax(-1), merged, reduction="none").sum(-1)


def from_cells(student: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """The compiled op, of a heatmap's cells weighted by the teacher's confidence."""
    return ops.cca_kl(student, cells, 1.0, offset=-0.25, weights=weights, probabilities=True)


def from_cells_eager(student: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """The reference of it."""
    return reference.cca_kl(student, cells, 1.0, offset=-0.25, weights=weights, probabilities=True)


def prepare_cells(case: Case, device: torch.device) -> Setup:
    """Logits of one axis, a heatmap's marginals and confidences of which a third are 0."""
    rows = case.sizes["batch"], case.sizes["joints"]
    student = torch.randn(*rows, case.sizes["classes"], device=device).to(case.torch_dtype)
    cells = torch.rand(*rows, case.sizes["bins"], device=device).to(case.torch_dtype)
    weights = (torch.rand(rows, device=device) * 1.5 - 0.5).clamp(min=0)
    competitors = {OURS: from_cells, EAGER: from_cells_eager, COMPILED: compiled(from_cells_eager)}
    return Setup(
        calls={
            name: run_with(function, (student, cells, weights), (student,), case)
            for name, function in competitors.items()
        },
        tolerance=1e-4 if case.dtype == "float32" else 1e-2,
        input_bytes=total_bytes(student, cells, weights),
        floor=floor(
            reads=(student, cells, weights),
            writes=(student,) if case.backward else (),
            exponentials=student.numel() + cells.numel(),
        ),
    )


def prepare(case: Case, device: torch.device) -> Setup:
    """Logits of one axis."""
    if case.variant == WEIGHTED:
        return prepare_cells(case, device)
    rows = case.sizes["batch"], case.sizes["joints"]
    student = torch.randn(*rows, case.sizes["classes"], device=device).to(case.torch_dtype)
    teacher = torch.randn(*rows, case.sizes["bins"], device=device).to(case.torch_dtype)
    competitors = {OURS: ours, EAGER: eager, "eager, by sums": sums, COMPILED: compiled(eager)}
    return Setup(
        calls={
            name: run_with(function, (student, teacher), (student,), case)
            for name, function in competitors.items()
        },
        tolerance=1e-4 if case.dtype == "float32" else 1e-2,
        input_bytes=total_bytes(student, teacher),
        floor=floor(
            reads=(student, teacher),
            writes=(student,) if case.backward else (),
            exponentials=student.numel() + teacher.numel(),
        ),
    )


PAPER = "cca_kl, forward + backward, 64 × 17 rows, 768 to 192 bins"
LEARNS = at(STUDENT_64, backward=True)

BENCH = Bench(
    "cca_kl",
    "KL divergence of the teacher's merged classes and the student's, one axis",
    cases=[
        *grid([STUDENT_64, STUDENT_32]),
        *smallest(STUDENT_64),
        *(
            Case(
                "heatmap teacher", {**CELLS, "batch": batch}, WEIGHTED, backward=learns, compiled=batch == 64
            )
            for batch in (1, 64)
            for learns in (False, True)
        ),
        *growth(
            STUDENT_64,
            batch=[1, 4, 16, 64, 256],
            joints=[16, 17, 133],
            bins=[{"bins": 4 * classes, "classes": classes} for classes in (48, 96, 192, 384)],
        ),
    ],
    quick=[
        *few({"batch": 4, "joints": 3, "bins": 96, "classes": 24}),
        Case("heatmap teacher", {"batch": 2, "joints": 3, "bins": 8, "classes": 24}, WEIGHTED),
    ],
    prepare=prepare,
    goals=[
        Goal(f"{PAPER}: against eager", LEARNS, faster_than(EAGER), 4),
        Goal(f"{PAPER}: against torch.compile", LEARNS, faster_than(COMPILED), 2.5),
        near_floor("cca_kl"),
        one_sample("cca_kl"),
    ],
)

if __name__ == "__main__":
    main(BENCH)
