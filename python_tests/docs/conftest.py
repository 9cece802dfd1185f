from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkout():
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def hooks(checkout):
    """The module of the documentation's build, which lies in no package."""
    pytest.importorskip("latex2mathml", reason="the documentation needs the extra docs")
    spec = importlib.util.spec_from_file_location("documentation_hooks", checkout / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
