"""The goals that the ops are measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench import cca_kl, projector_cosine, sau_select, simcc_decode, step
from bench.case import COMPILED, EAGER, OURS, Sizes
from bench.spread import added, ratio, spread

Row = dict[str, Any]  # a measured case


@dataclass(frozen=True)
class Goal:
    """A number to reach in every case that it is about.

    Attributes:
        what: in words.
        bench: the benchmark's name.
        where: which of its cases.
        value: of a case; nothing if the case lacks what it needs.
        bound: to be reached.
        at_least: or else at most.
    """

    what: str
    bench: str
    where: Callable[[Row], bool]
    value: Callable[[Row], float | None]
    bound: float
    at_least: bool = True

    def worst(self, found: dict[str, Any]) -> tuple[float, Row] | None:
        """The worst value and its case; nothing if none was measured."""
        rows = [row for bench in found["benches"] if bench["name"] == self.bench for row in bench["cases"]]
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


def _at(sizes: Sizes, **wanted: Any) -> Callable[[Row], bool]:
    wanted = {"group": "paper", "sizes": dict(sizes), "dtype": "float32", "threads": 1, **wanted}
    return lambda row: all(row[name] == value for name, value in wanted.items())


def _near_floor(name: str) -> Goal:
    return Goal(
        f"{name}: paper's sizes, float32, one and two threads, in floors",
        name,
        lambda row: row["group"] == "paper" and row["dtype"] == "float32",
        in_floors,
        1.5,
        at_least=False,
    )


def _goals() -> Iterator[Goal]:
    where = _at(cca_kl.STUDENT_64, backward=True)
    what = "cca_kl, forward + backward, 64 × 17 rows, 768 to 192 bins"
    yield Goal(f"{what}: against eager", "cca_kl", where, faster_than(EAGER), 4)
    yield Goal(f"{what}: against torch.compile", "cca_kl", where, faster_than(COMPILED), 2.5)

    where = _at(simcc_decode.STUDENT_64, variant="")
    what = "simcc_decode, 8704 rows of 192 bins"
    yield Goal(f"{what}: against eager", "simcc_decode", where, faster_than(EAGER), 8)
    yield Goal(f"{what}: against numpy", "simcc_decode", where, faster_than("numpy"), 10)

    where = _at(sau_select.STUDENT_64, backward=True)
    what = "sau_select, training, forward + backward, B = 32, C = 17, 16 × 16"
    yield Goal(f"{what}: against eager", "sau_select", where, faster_than(EAGER), 2)
    yield Goal(f"{what}: against torch.compile", "sau_select", where, faster_than(COMPILED), 1.3)

    where = _at(projector_cosine.STUDENT_64, backward=True)
    what = "projector_cosine, forward + backward, B = 32, C = 17, S = 256, T = 4096, K = 3"
    yield Goal(f"{what}: against eager", "projector_cosine", where, faster_than(EAGER), 1.3)
    yield Goal(f"{what}: against torch.compile", "projector_cosine", where, faster_than(COMPILED), 1)
    least = memory_of(OURS, EAGER, COMPILED)
    yield Goal(f"{what}: extra memory in that of either", "projector_cosine", where, least, 1 / 4, False)
    least = memory_of(projector_cosine.RECOMPUTE, EAGER, COMPILED)
    yield Goal(f"{what}: extra memory, recomputing", "projector_cosine", where, least, 1 / 8, False)

    for sizes in (step.STUDENT_64, step.STUDENT_32):
        live, stored = (_at(sizes, variant=variant, threads=2) for variant in (step.LIVE, step.STORED))
        what = f"distillation step, HRNet-W32, 256 × 256 to {sizes['student']} × {sizes['student']}, B = 16"
        yield Goal(f"{what}: against eager", "step", live, faster_than(EAGER), 2.5)
        yield Goal(f"{what}, teacher's outputs stored: against eager", "step", stored, faster_than(EAGER), 6)
        bound = in_times_of(step.PLAIN)
        yield Goal(f"{what}, stored: in times of plain training", "step", stored, bound, 1.15, False)

    yield from map(_near_floor, ("cca_kl", "simcc_decode", "simcc_kl"))
    for name in ("cca_kl", "simcc_decode", "simcc_kl", "sau_select", "projector_cosine"):
        yield Goal(
            f"{name}, a batch of one: against the fastest other",
            name,
            lambda row: row["group"] == "one sample",
            faster_than(),
            1,
        )


GOALS = tuple(_goals())
