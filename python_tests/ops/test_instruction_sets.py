"""Every op compiled for other vector widths than this processor's own: CDKD_ISA chooses when the library loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdkd_ext import _C

FOLDER = Path(__file__).parent
SCRIPT = """
import importlib.util, sys, torch
from cdkd_ext import _C, ops
from cdkd_ext.ops import reference

def load(name):
    spec = importlib.util.spec_from_file_location(name, f"{sys.argv[1]}/{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

projector, sau = load("test_projector_cosine"), load("test_sau_select")
for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
    inputs = projector.draw(7, 5, 33, 65, 3, dtype=dtype)
    expected = projector.value_and_gradients(reference.projector_cosine, [x.double() for x in inputs])
    projector.assert_near(projector.value_and_gradients(ops.projector_cosine, inputs), expected, tolerance)
    inputs = sau.draw(9, 17, (5, 6), kernels=(3, 7), dtype=dtype)
    expected = sau.run(reference.sau_select, sau.convert(inputs, torch.Tensor.double), training=True)
    sau.assert_near(sau.run(ops.sau_select, inputs, training=True), expected, tolerance)

# rows that are whole vectors of every width, and rows that are not
cases, every = load("conftest"), load("test_every_op")
for bins, classes in ((768, 192), (67, 19), (64, 64)):
    for case in (
        cases.Case("cca_kl", "paper", cases.cca_kl(classes, bins, "paper")),
        cases.Case("cca_kl", "centered", cases.cca_kl(classes, bins, "centered")),
        cases.Case("cca_kl", "fewer", cases.cca_kl(bins, classes, offset=0.3, weights=(1.0, 0.0, 2.0), probabilities=True)),
        cases.Case("simcc_kl", "smoothed", cases.simcc_kl(bins, label_smoothing=0.2)),
        cases.Case("simcc_kl", "gaussian", cases.simcc_kl(bins, sigma=1.5)),
        cases.Case("simcc_decode", "plain", cases.simcc_decode(bins, classes, 2.0, flip=False, affine=False, score="max")),
        cases.Case("simcc_decode", "flipped", cases.simcc_decode(bins, classes, 3.0, flip=True, affine=True, score="min")),
    ):
        for dtype in every.TOLERANCE:
            every.test_agrees_with_the_float64_reference(case, dtype)
print(_C.instruction_set())
"""


def run_with(name: str, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, str(FOLDER)],
        env={**os.environ, "CDKD_ISA": name, "OMP_NUM_THREADS": "1"},
        cwd=FOLDER,  # not the checkout, which would hide the installed package
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_every_width_gives_the_same_numbers(name: str) -> None:
    needed = {"baseline": None, "avx2": "avx2", "avx512": "avx512f"}[name]
    if needed and not _C.cpu_features().get(needed):
        pytest.skip(f"this processor has no {needed}")
    done = run_with(name, SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name


def test_an_unknown_instruction_set_is_refused() -> None:
    done = run_with("sse9", "import cdkd_ext.ops")
    assert done.returncode != 0
    assert "CDKD_ISA: expected one of 'baseline', 'avx2', 'avx512', got 'sse9'" in done.stderr
