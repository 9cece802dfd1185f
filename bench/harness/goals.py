"""Numbers to reach: a benchmark lists its own beside its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.harness.case import OURS, Sizes
from bench.harness.spread import added, ratio, spread

Row = dict[str, Any]  # a measured case


@dataclass(frozen=True)
class Goal:
    """A number to reach in every case that it is about.

    Attributes:
        what: in words.
        where: which of its cases.
        value: of a case; nothing if the case lacks what it needs.
        bound: to be reached.
        at_least: or else at most.
    """

    what: str
    where: Callable[[Row], bool]
    value: Callable[[Row], float | None]
    bound: float
    at_least: bool = True

    def worst(self, rows: Sequence[Row]) -> tuple[float, Row] | None:
        """The worst value and its case; nothing if none was measured."""
        values = [(value, row) for row in rows if self.where(row) and (value := self.value(row)) is not None]
        if not values:
            return None
        return (min if self.at_least else max)(values, key=lambda pair: pair[0])

    def reached(self, value: float) -> bool:
        """Whether this value is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound


def faster_than(*names: str) -> Callable[[Row], float | None]:
    """Time of the fastest of these competitors (all others if none is named) in ours."""

    def value(row: Row) -> float | None:
        others = [name for name in row["samples"] if name in names or (not names and name != OURS)]
        times = [ratio(row["samples"][name], row["samples"][OURS]).median for name in others]
        return min(times) if times else None

    return value


def memory_of(ours: str, *names: str) -> Callable[[Row], float | None]:
    """Extra memory of a competitor of ours in that of the most economical of others."""

    def value(row: Row) -> float | None:
        extra = row.get("extra_bytes", {})
        others = [extra[name] for name in names if name in extra]
        return extra[ours] / min(others) if others and ours in extra else None

    return value


def in_floors(row: Row) -> float | None:
    """Our time in floors."""
    return ratio(row["samples"][OURS], added(*row["floor"].values())).median if row["floor"] else None


def in_times_of(name: str) -> Callable[[Row], float | None]:
    """Our time in that of something measured beside the competitors."""

    def value(row: Row) -> float | None:
        samples = row["context"].get(name)
        return ratio(row["samples"][OURS], samples).median if samples else None

    return value


def what_bounds(row: Row) -> str:
    """How far from its floor a case is, and what the floor is made of."""
    if not row["floor"]:
        return "no floor measured"
    parts = {name: spread(samples).median for name, samples in row["floor"].items()}
    shares = ", ".join(f"{name} {seconds / sum(parts.values()):.0%}" for name, seconds in parts.items())
    return f"{in_floors(row):.2f} floors ({shares})"


def at(sizes: Sizes, **wanted: Any) -> Callable[[Row], bool]:
    """The paper's case of these sizes: float32 on one thread, unless another is wanted."""
    wanted = {"group": "paper", "sizes": dict(sizes), "dtype": "float32", "threads": 1, **wanted}
    return lambda row: all(row[name] == value for name, value in wanted.items())


def near_floor(name: str) -> Goal:
    """At most one and a half floors."""
    return Goal(
        f"{name}: paper's sizes, float32, one and two threads, in floors",
        lambda row: row["group"] == "paper" and row["dtype"] == "float32",
        in_floors,
        1.5,
        at_least=False,
    )


def one_sample(name: str) -> Goal:
    """As fast as the fastest other where the cost of a call shows."""
    return Goal(
        f"{name}, a batch of one: against the fastest other",
        lambda row: row["group"] == "one sample",
        faster_than(),
        1,
    )
