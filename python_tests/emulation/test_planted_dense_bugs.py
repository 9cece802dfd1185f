"""Bugs planted in copies of the dense kernels: each must be caught by the detector that is named with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dense_call
import kernel_build
import numpy as np
import pytest

from cdkd_ext.emulation.library import Emulation, EmulationError

pytestmark = pytest.mark.long

# what is changed, the file, its text and the new one; the kernels compiled anew, the call, the build and what it says
BUGS = {
    "missing barrier before a stage is multiplied": (
        "ops/projector_cosine/kernels_forward.cu",
        "        wait_copies<kStages - 2>();\n        __syncthreads();\n",
        "        wait_copies<kStages - 2>();\n",
        ("projector_cosine/kernels_forward.cu", "projector_cosine", "thread", "data race"),
    ),
    "copies not waited for": (
        "ops/projector_cosine/kernels_forward.cu",
        "        wait_copies<kStages - 2>();\n",
        "        wait_copies<kStages>();\n",
        ("projector_cosine/kernels_forward.cu", "projector_cosine", "plain", "results"),
    ),
    "a stage loaded while it is multiplied": (
        "ops/projector_cosine/kernels_forward.cu",
        "load_ahead(stage == 0 ? kStages - 1 : stage - 1)",
        "load_ahead(stage)",
        ("projector_cosine/kernels_forward.cu", "projector_cosine", "plain", "results"),
    ),
    "missing barrier before a tile is overwritten": (
        "ops/projector_cosine/kernels_backward.cu",
        "      __syncthreads();  // the tiles have been multiplied\n      load_tile",
        "      load_tile",
        ("projector_cosine/kernels_backward.cu", "projector_cosine_plain", "thread", "data race"),
    ),
    "out of bounds at the last row": (
        "ops/projector_cosine/kernels_forward.cu",
        "first + i < p.rows ? p.selected",
        "first + i <= p.rows ? p.selected",
        ("projector_cosine/kernels_forward.cu", "projector_cosine_plain", "address", "heap-buffer-overflow"),
    ),
    "misaligned vector load": (
        "ops/projector_cosine/kernel_problem.h",
        "target_vectors = targets % 16 == 0",
        "target_vectors = targets % 4 == 0",
        ("projector_cosine/kernels_backward.cu", "projector_cosine", "address", "misaligned address"),
    ),
    "a grid without the last tile of rows": (
        "ops/projector_cosine/kernels_forward.cu",
        "divide_up(p.rows, kTile) * divide_up(p.targets, kTile)",
        "p.rows / kTile * divide_up(p.targets, kTile)",
        ("projector_cosine/kernels_forward.cu", "projector_cosine", "plain", "results"),
    ),
    "rows of matrices at the wrong place": (
        "ops/projector_cosine/kernel_tiles.h",
        "a + (m + inside + odd) * a_stride + k + upper",
        "a + (m + inside + upper) * a_stride + k + odd",
        ("projector_cosine/kernels_forward.cu", "projector_cosine", "plain", "results"),
    ),
    "missing barrier before a tile of pixels is used": (
        "ops/sau_select/kernel_tiles.h",
        "      __syncthreads();\n      if (!pixels.used) continue;\n",
        "      if (!pixels.used) continue;\n",
        ("sau_select/kernels_forward.cu", "sau_select", "thread", "data race"),
    ),
    "missing barrier before the squeezed activations are used": (
        "ops/sau_select/kernel_head.h",
        "  squeeze(call, pooled, squeezed);\n  __syncthreads();\n",
        "  squeeze(call, pooled, squeezed);\n",
        ("sau_select/kernels_forward.cu", "sau_select", "thread", "data race"),
    ),
    "too little shared memory": (
        "ops/sau_select/kernels_forward.cu",
        "std::max(shared_bytes<T>(call, tiling, 1), reduction)",
        "reduction",
        ("sau_select/kernels_forward.cu", "sau_select", "address", "use-after-poison|heap-buffer-overflow"),
    ),
    "uninitialised shared memory": (
        "ops/sau_select/kernels_forward.cu",
        "c += threads) pooled[c] = 0;",
        "c += threads) pooled[c] += 0;",
        ("sau_select/kernels_forward.cu", "sau_select_evaluation", "plain", "results"),
    ),
    "divergent shuffle": (
        "ops/sau_select/kernel_head.h",
        "  reduce_warp(sum, Add{});\n",
        "  if (threadIdx.x % kWarp < count) reduce_warp(sum, Add{});\n",
        ("sau_select/kernels_forward.cu", "sau_select", "plain", "deadlock|different collectives"),
    ),
    "a padded pixel taken from the next row": (
        "ops/sau_select/kernels_backward.cu",
        "const bool inside = y >= 0 && y < call.height && x >= 0 && x < call.width;",
        "const bool inside = y >= 0 && y < call.height && x >= 0;",
        ("sau_select/kernels_backward.cu", "sau_select", "plain", "results"),
    ),
}


def bits(results: Any) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in results]


@pytest.mark.parametrize("name", BUGS)
def test_caught(emulation: Emulation, builds: Path, tmp_path: Path, name: str) -> None:
    file, old, new, (kernel, call, variant, caught) = BUGS[name]
    library = kernel_build.build_planted(variant, builds, tmp_path, file, old, new, kernel)
    if variant != "plain":
        done = kernel_build.run_python(variant, library, ["dense_call.py", call])
        if "unexpected memory mapping" in done.stderr or "failed to set personality" in done.stderr:
            pytest.skip(f"the sanitizer does not start here: {done.stderr.strip()[:200]}")
        assert done.returncode != 0
        assert re.search(caught, done.stderr)
        return
    planted = Emulation(library)
    planted.configure()
    emulation.configure()
    if caught == "results":
        assert bits(getattr(dense_call, call)(planted)) != bits(getattr(dense_call, call)(emulation))
        return
    with pytest.raises(EmulationError, match=caught):
        getattr(dense_call, call)(planted)


@pytest.mark.parametrize("variant", ["address", "thread"])
@pytest.mark.parametrize(
    "call", ["projector_cosine", "projector_cosine_plain", "sau_select", "sau_select_evaluation"]
)
def test_no_alarm_without_a_bug(builds: Path, variant: str, call: str) -> None:
    done = kernel_build.run_python(variant, kernel_build.build(variant, builds), ["dense_call.py", call])
    assert done.returncode == 0, done.stderr
