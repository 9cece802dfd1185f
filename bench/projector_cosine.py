"""Cosine of the teacher's feature map and an ensemble of projections of the student's."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness.benchmark import Bench
from bench.harness.case import (
    COMPILED,
    EAGER,
    OURS,
    Call,
    Case,
    Setup,
    compiled,
    few,
    grid,
    growth,
    repeated,
    run_with,
    smallest,
    total_bytes,
)
from bench.harness.goals import Goal, at, faster_than, memory_of, one_sample
from bench.harness.limits import floor
from bench.harness.run import main
from cdkd_ext import ops
from cdkd_ext.ops import reference

PROJECTORS = 3
STUDENT_64 = {"batch": 32, "joints": 17, "source": 256, "target": 4096}  # 16×16 to 64×64 positions
STUDENT_32 = {"batch": 32, "joints": 17, "source": 64, "target": 4096}
SMALL_BATCH = {**STUDENT_64, "batch": 4}
RECOMPUTE = f"{OURS}, recompute"


def eager(feature: Tensor, weight: Tensor, bias: Tensor, select: Tensor, teacher: Tensor) -> Tensor:
    """The reference."""
    return reference.projector_cosine(feature, weight, bias, select, teacher)


def layers(feature: Tensor, weight: Tensor, bias: Tensor, select: Tensor, teacher: Tensor) -> Tensor:
    """What one writes with torch's layers: one projector after the other."""
    feature, weight, teacher = feature.float(), weight.float(), teacher.float()
    mixed = torch.zeros_like(teacher)
    for k in range(PROJECTORS):
        mixed = mixed + select[:, k, :, None] * F.linear(feature, weight[k], bias[k]).relu()
    return F.cosine_similarity(mixed.flatten(1), teacher.flatten(1))


def prepare(case: Case, device: torch.device) -> Setup:
    """Both feature maps, the projectors and their weights."""
    batch, channels, source, target = (case.sizes[name] for name in ("batch", "joints", "source", "target"))
    dtype = case.torch_dtype
    feature = torch.randn(batch, channels, source, device=device).to(dtype)
    weight = (torch.randn(PROJECTORS, target, source, device=device) / source**0.5).to(dtype)
    bias = torch.randn(PROJECTORS, target, device=device) / 10
    select = torch.randn(batch, PROJECTORS, channels, device=device).softmax(1)
    teacher = torch.randn(batch, channels, target, device=device).relu().to(dtype)
    inputs, learn = (feature, weight, bias, select, teacher), (feature, weight, bias, select)
    competitors = {OURS: ops.projector_cosine, EAGER: eager, "eager, torch's layers": layers}
    if case.backward:
        competitors[RECOMPUTE] = functools.partial(ops.projector_cosine, recompute=True)
    competitors[COMPILED] = compiled(eager)
    count = (3 if case.backward else 1) * batch * channels * PROJECTORS * target * source
    peak = floor(multiply_adds=count) if dtype == torch.float32 and device.type == "cpu" else {}
    traffic = floor(reads=inputs, writes=learn if case.backward else ())
    return Setup(
        calls={name: run_with(function, inputs, learn, case) for name, function in competitors.items()},
        tolerance=1e-3 if case.dtype == "float32" else 2e-2,
        input_bytes=total_bytes(*inputs),
        floor={**traffic, "matrix products": repeated(_products(feature, weight, case))} if traffic else {},
        context={f"{name} at the peak": loop for name, loop in peak.items()},
    )


def _products(feature: Tensor, weight: Tensor, case: Case) -> Call:
    """torch.mm of the same sizes: the projections, and in backward both of their gradients."""
    rows, columns = feature.detach().flatten(0, 1), weight.detach().flatten(0, 1)  # (B·C, S), (K·T, S)
    projected = torch.empty(len(rows), len(columns), dtype=rows.dtype, device=rows.device)
    to_rows, to_columns = torch.empty_like(rows), torch.empty_like(columns)

    def products() -> None:
        torch.mm(rows, columns.T, out=projected)
        if case.backward:
            torch.mm(projected, columns, out=to_rows)
            torch.mm(projected.T, rows, out=to_columns)

    return products


PAPER = "projector_cosine, forward + backward, B = 32, C = 17, S = 256, T = 4096, K = 3"
LEARNS = at(STUDENT_64, backward=True)
OTHERS = (EAGER, COMPILED)

BENCH = Bench(
    "projector_cosine",
    "cosine with the weighted sum of three projections",
    cases=[
        *grid([STUDENT_64, STUDENT_32]),
        *smallest(STUDENT_64),
        *growth(STUDENT_64, batch=[1, 4, 16, 64]),
        *growth(SMALL_BATCH, joints=[16, 17, 133], target=[256, 1024, 4096, 9216]),
    ],
    quick=few({"batch": 4, "joints": 3, "source": 16, "target": 64}),
    prepare=prepare,
    goals=[
        Goal(f"{PAPER}: against eager", LEARNS, faster_than(EAGER), 1.3),
        Goal(f"{PAPER}: against torch.compile", LEARNS, faster_than(COMPILED), 1),
        Goal(f"{PAPER}: extra memory in that of either", LEARNS, memory_of(OURS, *OTHERS), 1 / 4, False),
        Goal(f"{PAPER}: extra memory, recomputing", LEARNS, memory_of(RECOMPUTE, *OTHERS), 1 / 8, False),
        one_sample("projector_cosine"),
    ],
)

if __name__ == "__main__":
    main(BENCH)
