"""From SimCC logits to keypoints and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
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

SPLIT_RATIO = 3.0
STUDENT_64 = {"batch": 256, "joints": 17, "bins": 192}
STUDENT_32 = {"batch": 256, "joints": 17, "bins": 64}
FLIPPED = "flip test"
Flipped = tuple[Tensor, Tensor, Tensor]


def ours(x: Tensor, y: Tensor, flipped: Flipped | None = None) -> tuple[Tensor, Tensor]:
    """The compiled op."""
    return ops.simcc_decode(x, y, SPLIT_RATIO, flipped=flipped)


def eager(x: Tensor, y: Tensor, flipped: Flipped | None = None) -> tuple[Tensor, Tensor]:
    """The reference."""
    return reference.simcc_decode(x, y, SPLIT_RATIO, flipped=flipped)


def by_max(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The fewest eager calls: softmax, then max with its index."""
    (score_x, bin_x), (score_y, bin_y) = (z.float().softmax(-1).max(-1) for z in (x, y))
    return torch.stack((bin_x, bin_y), -1) / SPLIT_RATIO, torch.minimum(score_x, score_y)


def with_numpy(x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What evaluation scripts do: to numpy first, then softmax, argmax and maximum of each axis."""
    found = []
    for logits in (x, y):
        z = logits.float().cpu().numpy()
        exponential = np.exp(z - z.max(axis=-1, keepdims=True))
        probability = exponential / exponential.sum(axis=-1, keepdims=True)
        found.append((probability.argmax(axis=-1), probability.max(axis=-1)))
    (bin_x, score_x), (bin_y, score_y) = found
    return np.stack((bin_x, bin_y), axis=-1) / SPLIT_RATIO, np.minimum(score_x, score_y)


def prepare(case: Case, device: torch.device) -> Setup:
    """Logits of both axes, and of the mirrored image for the flip test."""
    batch, joints, bins = (case.sizes[name] for name in ("batch", "joints", "bins"))
    pictures = 4 if case.variant == FLIPPED else 2
    # a peak far above the rest, as networks give it: which bin wins does not hang on the last bit
    peaks = 12 * torch.nn.functional.one_hot(torch.randint(bins, (pictures, batch, joints)), bins)
    logits = [(torch.randn(batch, joints, bins) + peak).to(device, case.torch_dtype) for peak in peaks]
    x, y, *mirrored = logits
    inputs = (x, y, (*mirrored, torch.arange(joints, device=device))) if mirrored else (x, y)
    competitors: dict[str, Callable[..., Any]] = {OURS: ours, EAGER: eager, COMPILED: compiled(eager)}
    if not mirrored:
        competitors.update({"eager, by max": by_max, "numpy": with_numpy})
    return Setup(
        calls={name: run_with(function, inputs, (), case) for name, function in competitors.items()},
        tolerance=1e-4,
        input_bytes=total_bytes(*logits),
        floor=floor(reads=logits, exponentials=pictures * batch * joints * bins),
    )


PAPER = "simcc_decode, 8704 rows of 192 bins"
PLAIN = at(STUDENT_64, variant="")

BENCH = Bench(
    "simcc_decode",
    "keypoints and scores of both axes",
    cases=[
        *grid([STUDENT_64, STUDENT_32], backward=False),
        *grid([STUDENT_64], variant=FLIPPED, backward=False),
        *smallest(STUDENT_64, backward=False),
        *growth(
            STUDENT_64,
            backward=False,
            batch=[1, 4, 16, 64, 256],
            joints=[16, 17, 133],
            bins=[48, 96, 192, 384],
        ),
    ],
    quick=[
        *few({"batch": 4, "joints": 3, "bins": 24}, backward=False),
        *few({"batch": 4, "joints": 3, "bins": 24}, variant=FLIPPED, backward=False)[:1],
    ],
    prepare=prepare,
    goals=[
        Goal(f"{PAPER}: against eager", PLAIN, faster_than(EAGER), 8),
        Goal(f"{PAPER}: against numpy", PLAIN, faster_than("numpy"), 10),
        near_floor("simcc_decode"),
        one_sample("simcc_decode"),
    ],
)

if __name__ == "__main__":
    main(BENCH)
