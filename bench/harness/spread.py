"""A median and its quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Median with the quartiles below and above it; as text to three digits."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.low)} to {digits(self.high)})"


def digits(number: float) -> str:
    """A positive number to three digits, or to hundredths."""
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


def spread(samples: Sequence[float]) -> Spread:
    """Median and quartiles of at least one sample."""
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(samples: Sequence[float], to: Sequence[float]) -> Spread:
    """Spread of samples[i] / to[i]: both were taken in the same round, so what slowed both drops out."""
    return spread([a / b for a, b in zip(samples, to, strict=True)])


def added(*parts: Sequence[float]) -> list[float]:
    """Samples of what takes all parts one after the other."""
    return [sum(values) for values in zip(*parts, strict=True)]
