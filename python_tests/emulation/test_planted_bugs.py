"""Bugs planted in copies of the kernels: each must be caught by the detector that is named with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kernel_build
import numpy as np
import pytest
from kernel_values import normal

from cdkd_ext.emulation import cca_kl, scale_rows, simcc_decode, simcc_kl
from cdkd_ext.emulation.library import Emulation, EmulationError

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Bug:
    name: str
    file: str
    old: str
    new: str
    kernel: str  # compiled anew
    variant: str
    caught: str  # in the sanitizer's report or the emulation's error; "results": wrong ones


BUGS = [
    Bug(
        "missing barrier in a reduction",
        "cuda/reduce.h",
        "  __syncthreads();\n",
        "",
        "cca_kl",
        "thread",
        "data race",
    ),
    Bug(
        "missing barrier before memory is reused",
        "ops/cca_kl/kernels.cu",
        "    __syncthreads();  // the next row takes the memory\n",
        "",
        "cca_kl",
        "thread",
        "data race",
    ),
    Bug(
        "missing __syncwarp",
        "ops/simcc_decode/kernels.cu",
        "  reduce_warp(max, Larger());\n  __syncwarp();\n",
        "  reduce_warp(max, Larger());\n",
        "simcc_decode",
        "thread",
        "data race",
    ),
    Bug(
        "out of bounds at the last row",
        "ops/simcc_kl/kernels.cu",
        "row < call.rows;",
        "row <= call.rows;",
        "simcc_kl",
        "address",
        "heap-buffer-overflow",
    ),
    Bug(
        "too little shared memory",
        "ops/cca_kl/kernels.cu",
        "layout.total = layout.scratch + 8 * kWarp;",
        "layout.total = layout.scratch;",
        "cca_kl",
        "address",
        "use-after-poison",
    ),
    Bug(
        "misaligned vector load",
        "cuda/rows.h",
        "(16 - misaligned) % 16",
        "0 * misaligned",
        "simcc_kl",
        "address",
        "misaligned address",
    ),
    Bug(
        "divergent shuffle",
        "ops/simcc_decode/kernels.cu",
        "  const A own = peak.value;\n  peak.reduce();",
        "  const A own = peak.value;\n  if (lanes.thread < 16) peak.reduce();",
        "simcc_decode",
        "plain",
        "lanes of one warp meet at different collectives",
    ),
    Bug(
        "divergent barrier",
        "cuda/reduce.h",
        "  __syncthreads();\n",
        "  if (warp == 0) __syncthreads();\n",
        "cca_kl",
        "plain",
        "divergent __syncthreads",
    ),
    Bug(
        "uninitialised shared memory",
        "ops/cca_kl/kernels.cu",
        "if (staged) mass[j] = sums.mass;",
        "if (staged && j > 0) mass[j] = sums.mass;",
        "cca_kl",
        "plain",
        "results",
    ),
    Bug(
        "a row without weight that ends the block",
        "ops/cca_kl/kernels.cu",
        "      write_nothing<A>(call, row, block);\n      continue;",
        "      write_nothing<A>(call, row, block);\n      return;",
        "cca_kl",
        "plain",
        "results",
    ),
    Bug(
        "a class that begins a bin too early",
        "ops/cca_kl/class_bins.h",
        "if (edge.part < 0) edge = {edge.bin - 1, edge.part + 1};",
        "if (edge.part < 0) edge = {edge.bin - 1, edge.part};",
        "cca_kl",
        "plain",
        "results",
    ),
    Bug(
        "a class beyond the last bin",
        "ops/cca_kl/class_bins.h",
        "left.bin < bins ? left.bin : bins - 1",
        "left.bin <= bins ? left.bin : bins - 1",
        "cca_kl",
        "address",
        "use-after-poison|heap-buffer-overflow",
    ),
    Bug(
        "a grid without a block for the last tasks",
        "cuda/launch.h",
        "(tasks + per_block - 1) / per_block",
        "tasks / per_block",
        "simcc_decode",
        "plain",
        "a device refuses this launch",
    ),
    Bug(
        "blocks that skip rows",
        "ops/scale_rows/kernels.cu",
        "int64_t{blockIdx.x} * kWarps + warp",
        "int64_t{blockIdx.x} * kWarp + warp",
        "scale_rows",
        "plain",
        "results",
    ),
    Bug(
        "shuffle from a lane that takes no part",
        "cuda/reduce.h",
        "__shfl_xor_sync(kAllLanes, values[i], distance)",
        "__shfl_xor_sync(0x7fffffffu, values[i], distance)",
        "scale_rows",
        "plain",
        "reads a lane that takes no part",
    ),
]


def results(emulation: Emulation, kernel: str) -> list[Any]:
    """Results of a small call of each op; no shape is a multiple of anything."""
    if kernel == "cca_kl":
        tau, weights = np.array(1.5), (np.arange(4100) % 5 > 0).astype(np.float32)
        found = [
            *cca_kl.cca_kl(emulation, normal(0, 5, 133), normal(1, 5, 401), tau),
            *cca_kl.cca_kl(
                emulation, normal(0, 4100, 3), normal(1, 4100, 2), tau, offset=0.7, weights=weights
            ),
        ]
    elif kernel == "scale_rows":
        found = scale_rows.scale_rows(emulation, normal(0, 9, 5), normal(1, 9), normal(2, 9))
    elif kernel == "simcc_decode":
        found = simcc_decode.simcc_decode(emulation, normal(0, 1, 3, 40), normal(1, 1, 3, 37), 2.0)
    else:
        found = simcc_kl.simcc_kl(emulation, normal(0, 3, 37), np.array([1.0, 2.0, 3.0]))
    return [None if array is None else array.tobytes() for array in found]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_caught(emulation: Emulation, builds: Path, tmp_path: Path, bug: Bug) -> None:
    library = kernel_build.build_planted(
        bug.variant, builds, tmp_path, bug.file, bug.old, bug.new, f"{bug.kernel}/kernels.cu"
    )
    if bug.variant != "plain":
        done = kernel_build.run_python(bug.variant, library, ["sanitized_call.py", bug.kernel])
        if "unexpected memory mapping" in done.stderr or "failed to set personality" in done.stderr:
            pytest.skip(f"the sanitizer does not start here: {done.stderr.strip()[:200]}")
        assert done.returncode != 0
        assert re.search(bug.caught, done.stderr)
        return
    planted = Emulation(library)
    if bug.caught == "results":
        emulation.configure()
        assert results(planted, bug.kernel) != results(emulation, bug.kernel)
        return
    with pytest.raises(EmulationError, match=bug.caught):
        results(planted, bug.kernel)


@pytest.mark.parametrize("variant", ["address", "thread"])
@pytest.mark.parametrize("kernel", ["cca_kl", "simcc_kl", "simcc_decode", "scale_rows"])
def test_no_alarm_without_a_bug(builds: Path, variant: str, kernel: str) -> None:
    done = kernel_build.run_python(
        variant, kernel_build.build(variant, builds), ["sanitized_call.py", kernel]
    )
    assert done.returncode == 0, done.stderr
