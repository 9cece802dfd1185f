"""`cdkd train`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.cli.configured import run_training
from cdkd_ext.training import TrainingConfig


def run(arguments: Sequence[str]) -> None:
    """Train a teacher or a plain student."""
    run_training("train", TrainingConfig, arguments)
