"""Small calls of the dense ops. Run as a program: one op of the library that CDKD_EMULATION names, in an own process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from kernel_values import normal

from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.projector_cosine import projector_cosine as run_projector_cosine
from cdkd_ext.emulation.sau_select import sau_select as run_sau_select

Results = tuple[object, ...]


def projector_cosine(emulation: Emulation, dtype: str = "float16") -> Results:
    samples, channels, positions, targets, projectors = 3, 23, 40, 84, 4
    return run_projector_cosine(
        emulation,
        normal(0, samples, channels, positions, dtype=dtype),
        normal(1, projectors, targets, positions, dtype=dtype),
        normal(2, projectors, targets),
        normal(3, samples, projectors, channels),
        normal(4, samples, channels, targets, dtype=dtype),
        normal(5, samples),
    )


def projector_cosine_plain(emulation: Emulation) -> Results:
    return projector_cosine(emulation, "float32")


def sau_select(emulation: Emulation, *, training: bool = True) -> Results:
    samples, channels, height, width, kernels, hidden, projectors = 3, 9, 5, 17, (3, 5), 7, 3
    maps = (len(kernels), channels)
    return run_sau_select(
        emulation,
        normal(0, samples, channels, height, width),
        [normal(k, channels, channels, k, k) for k in kernels],
        normal(1, *maps),
        normal(2, *maps),
        normal(3, *maps),
        abs(normal(4, *maps)),
        normal(5, hidden, channels),
        normal(6, hidden),
        normal(7, projectors, channels, hidden),
        normal(8, projectors, channels),
        normal(9, samples, projectors, channels),
        training=training,
    )


def sau_select_evaluation(emulation: Emulation) -> Results:
    return sau_select(emulation, training=False)


if __name__ == "__main__":
    chosen = Emulation(Path(os.environ["CDKD_EMULATION"]))
    for schedule in (0, 1, 5):
        chosen.configure(schedule=schedule)
        globals()[sys.argv[1]](chosen)
