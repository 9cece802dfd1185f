"""Tiny runs that a study is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdkd_ext.studies import StudyRun

TINY = (
    "--model.name=lowres_small",
    "--batch_size=16",
    "--data.workers=0",
    "--cpu=true",
    "--epochs=1",
)


@pytest.fixture
def tiny(drawn_people: Path) -> Callable[..., StudyRun]:
    """Makes a training of a few steps on drawn people."""

    def make(name: str, *words: str, row: str = "alone", seed: int = 0, **options: object) -> StudyRun:
        command = ("train", f"--data.root={drawn_people}", *TINY, f"--seed={seed}", *words)
        return StudyRun(name=name, row=row, seed=seed, command=command, **options)  # type: ignore[arg-type]

    return make
