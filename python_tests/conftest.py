"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs; tests that need it skip where it is absent."""
    chosen = os.environ.get("CDKD_TEST_DATA")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real photographs at {folder} (set CDKD_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of procedural figures: 48 people to train on, 12 to validate."""
    from cdkd_ext.data.figures import make_figures

    root = tmp_path_factory.mktemp("figures")
    make_figures(root / "train", 48, seed=0)
    make_figures(root / "val", 12, seed=1)
    return root
