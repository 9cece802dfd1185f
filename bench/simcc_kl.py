"""SimCC's own loss: from coordinates, without targets in memory."""

from __future__ import annotations

import math

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
from bench.harness.goals import near_floor, one_sample
from bench.harness.limits import floor
from bench.harness.run import main
from cdkd_ext import ops
from cdkd_ext.ops import reference

STUDENT_64 = {"batch": 64, "joints": 17, "bins": 192}
STUDENT_32 = {"batch": 64, "joints": 17, "bins": 64}
HARD, GAUSSIAN = "hard labels", "Gaussian labels"
SIGMA = 4.0


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """What one writes for hard labels."""
    rows = logits.float().flatten(0, -2)
    return F.cross_entropy(rows, target.round().long().flatten(), reduction="none").view(target.shape)


def kl_div(logits: Tensor, target: Tensor) -> Tensor:
    """What one writes for Gaussian labels: build them, then F.kl_div."""
    index = torch.arange(logits.shape[-1], device=logits.device)
    labels = torch.exp(-((index - target[..., None]) ** 2) / (2 * SIGMA**2)) / (
        SIGMA * math.sqrt(2 * math.pi)
    )
    return F.kl_div(logits.float().log_softmax(-1), labels, reduction="none").sum(-1)


def prepare(case: Case, device: torch.device) -> Setup:
    """Logits of one axis and coordinates inside it."""
    rows, bins = (case.sizes["batch"], case.sizes["joints"]), case.sizes["bins"]
    logits = torch.randn(*rows, bins, device=device).to(case.torch_dtype)
    target = torch.rand(rows, device=device) * (bins - 1)
    sigma = SIGMA if case.variant == GAUSSIAN else None

    def ours(logits: Tensor, target: Tensor) -> Tensor:
        return ops.simcc_kl(logits, target, sigma=sigma)

    def eager(logits: Tensor, target: Tensor) -> Tensor:
        return reference.simcc_kl(logits, target, sigma=sigma)

    usual = {HARD: ("eager, F.cross_entropy", cross_entropy), GAUSSIAN: ("eager, F.kl_div", kl_div)}
    competitors = {OURS: ours, EAGER: eager, COMPILED: compiled(eager)}
    competitors.update([usual[case.variant]])
    return Setup(
        calls={
            name: run_with(function, (logits, target), (logits,), case)
            for name, function in competitors.items()
        },
        tolerance=1e-4 if case.dtype == "float32" else 1e-2,
        input_bytes=total_bytes(logits, target),
        floor=floor(
            reads=(logits, target),
            writes=(logits,) if case.backward else (),
            exponentials=logits.numel(),
        ),
    )


BENCH = Bench(
    "simcc_kl",
    "SimCC's own loss, one axis",
    cases=[
        *grid([STUDENT_64, STUDENT_32], variant=HARD),
        *grid([STUDENT_64, STUDENT_32], variant=GAUSSIAN),
        *smallest(STUDENT_64, variant=HARD),
        *smallest(STUDENT_64, variant=GAUSSIAN),
        *growth(
            STUDENT_64,
            variant=GAUSSIAN,
            batch=[1, 4, 16, 64, 256],
            joints=[16, 17, 133],
            bins=[48, 96, 192, 384],
        ),
    ],
    quick=[
        *few({"batch": 4, "joints": 3, "bins": 24}, variant=GAUSSIAN),
        *few({"batch": 4, "joints": 3, "bins": 24}, variant=HARD)[:1],
    ],
    prepare=prepare,
    goals=[
        near_floor("simcc_kl"),
        one_sample("simcc_kl"),
    ],
)

if __name__ == "__main__":
    main(BENCH)
