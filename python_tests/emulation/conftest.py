"""The emulated kernels under test, and the schedules under which all must give the same bits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests
import kernel_build

from cdkd_ext.emulation.library import Emulation

# in order, reversed, eight random ones; sanitizers, which do not need them all, get fewer
SCHEDULES = [0, 1, *range(2, 10)][: int(os.environ.get("CDKD_SCHEDULES", "10"))]


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which a variant is compiled once, for all workers of a session."""
    if kernel_build.compiler() is None:
        pytest.skip("needs g++ to compile the kernels for the CPU")
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "emulation"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def emulation(request: pytest.FixtureRequest) -> Emulation:
    """The kernels of this checkout, compiled here, or those that CDKD_EMULATION names."""
    chosen = os.environ.get("CDKD_EMULATION")
    if chosen:
        return Emulation(Path(chosen))
    return Emulation(kernel_build.build("plain", request.getfixturevalue("builds")))


Run = Callable[..., tuple[np.ndarray, ...]]


@pytest.fixture
def run(emulation: Emulation) -> Run:
    """Call an op under every schedule; its results must have the same bits each time."""

    def run(op: Callable[..., Any], *args: Any, **options: Any) -> tuple[np.ndarray, ...]:
        expected: list[bytes] = []
        for schedule in SCHEDULES:
            emulation.configure(schedule=schedule)
            emulation.clear_launches()
            results = op(emulation, *args, **options)
            found = [b"" if result is None else result.tobytes() for result in results]
            expected = expected or found
            assert found == expected, f"schedule {schedule} gives other bits"
        return results

    return run
