"""Makes bench/ importable: it lies in the checkout and is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))
import bench  # noqa: E402, F401  (takes the checkout off the path again)


@pytest.fixture(scope="session")
def python():
    """Runs an interpreter in the checkout, as a user does, and returns what it prints."""

    def run(*arguments, **environment):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=CHECKOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
