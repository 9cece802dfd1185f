"""`cdkd distill`."""

from __future__ import annotations

from collections.abc import Sequence

from cdkd_ext.cli.configured import run_training
from cdkd_ext.cli.students import run_students, split_students
from cdkd_ext.training import DistillationConfig


def run(arguments: Sequence[str]) -> None:
    """Train a student with a teacher, or several at once."""
    files, rest = split_students(arguments)
    if files is None:
        run_training("distill", DistillationConfig, rest)
    else:
        run_students(files, rest)
