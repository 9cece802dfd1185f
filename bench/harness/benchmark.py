"""A benchmark: its cases, what prepares them, and the numbers to reach."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.harness.case import Case, Setup
from bench.harness.goals import Goal

FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Bench:
    """A benchmark: the name of its module, what it compares in one line, and its cases.

    Attributes:
        name: of the module in bench/.
        title: one line.
        cases: all of them, in the order of the table.
        quick: a few small ones, to try the benchmark out.
        prepare: draws a case's inputs, on a device, and wraps the competitors.
        goals: numbers to reach.
    """

    name: str
    title: str
    cases: Sequence[Case]
    quick: Sequence[Case]
    prepare: Callable[[Case, torch.device], Setup]
    goals: Sequence[Goal] = ()

    def select(self, *, quick: bool, only: str) -> list[Case]:
        """The cases, or the quick ones, whose title contains a text."""
        return [case for case in (self.quick if quick else self.cases) if only in case.title]


def names() -> tuple[str, ...]:
    """Every benchmark: the modules of bench/ itself, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")))


def load(name: str) -> Bench:
    """The benchmark that a module of bench/ defines as `BENCH`."""
    return importlib.import_module(f"bench.{name}").BENCH
