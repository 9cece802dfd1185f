"""`cdkd distill`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.cli.configured import run_training
from cdkd_ext.training import DistillationConfig


def run(arguments: Sequence[str]) -> None:
    """Train a student with a teacher."""
    run_training("distill", DistillationConfig, arguments)
