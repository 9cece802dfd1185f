"""The dense ops compiled for other vector widths than this processor's own: CDKD_ISA chooses when the library loads."""

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
from cdkd_ext import ops
from cdkd_ext.ops import reference

def load(name):
    spec = importlib.util.spec_from_file_location(name, f"{sys.argv[1]}/{name}.py")
    module = importlib.util.module_from_spec(spec)
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
"""


@pytest.mark.parametrize("name", ["baseline", "avx2"])
def test_every_width_gives_the_same_numbers(name: str) -> None:
    if name == "avx2" and not _C.cpu_features().get("avx512f"):
        pytest.skip("the other tests run with these vectors, or this processor has none")
    environment = {**os.environ, "CDKD_ISA": name, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(FOLDER)],
        env=environment,
        cwd=FOLDER,  # not the checkout, which would hide the installed package
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
