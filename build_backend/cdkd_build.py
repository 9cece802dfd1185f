"""scikit-build-core, with torch as a build requirement only where the target environment has none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from scikit_build_core import build as _backend
from scikit_build_core.build import *  # noqa: F403

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cmake"))
import find_torch


def _torch() -> list[str]:
    return [] if find_torch.find() else [os.environ.get("CDKD_BUILD_TORCH", "torch>=2.10")]


def get_requires_for_build_wheel(  # type: ignore[no-redef]
    config_settings: dict[str, Any] | None = None,
) -> list[str]:
    """Return what pip must install to build a wheel."""
    return [*_backend.get_requires_for_build_wheel(config_settings), *_torch()]


def get_requires_for_build_editable(  # type: ignore[no-redef]
    config_settings: dict[str, Any] | None = None,
) -> list[str]:
    """Return what pip must install to build in editable mode."""
    return [*_backend.get_requires_for_build_editable(config_settings), *_torch()]
