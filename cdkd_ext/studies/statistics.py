"""Is a difference more than chance? A paired bootstrap over people and seeds.

People and seeds are both drawn with replacement and crossed: every seed's network was measured on every person (Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007). Both rows of a difference see the same draw, for the same
person is easy or hard for both, and the same seed means the same views in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check

_PART = 500  # draws at a time: (draws, people) weights


@dataclass(frozen=True)
class RowHits:
    """How many joints of each person the networks of a row found.

    Args:
        right: (S, N), of each seed and person.
        counted: (N,), how many were looked at.
        seeds: S names of the seeds, or none for one network without seed, which is the same for all.

    Raises:
        InputError: shapes do not fit, a count is out of range, or nothing was counted.
    """

    right: npt.NDArray[np.floating | np.integer]
    counted: npt.NDArray[np.floating | np.integer]
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # unsigned counts have no differences, and short types no sums
        for name in ("right", "counted"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        shape = (max(len(self.seeds), 1), len(self.counted))
        check(self.right.shape == shape, "right", self.right.shape, f"shape {shape}: seeds, people")
        inside = (self.right >= 0).all() and (self.right <= self.counted).all()
        check(inside, "right", "a number out of range", "at least 0 and at most as many as counted")
        check(self.counted.sum() > 0, "counted", "nothing", "at least one joint of one person")

    @property
    def percent(self) -> npt.NDArray[np.float64]:
        """(S,), the percentage of each seed."""
        return np.asarray(100.0 * self.right.sum(1) / self.counted.sum())

    def of(self, seeds: Sequence[int]) -> RowHits:
        """The row with some of its seeds; one without seeds is the same for all."""
        if not self.seeds:
            return self
        return RowHits(self.right[[self.seeds.index(seed) for seed in seeds]], self.counted, tuple(seeds))


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: percent, or points of percent.
        low: lower end of the interval.
        high: upper end.
        p: two-sided probability of a difference at least as far from 0 if there were none; None for no difference.
        seeds: those that it is of; none where nothing was drawn.
        people: how many were measured; of one alone the interval is all that there can be, and p is 1.
        each: the value of each seed.
    """

    value: float
    low: float
    high: float
    p: float | None
    seeds: tuple[int, ...]
    people: int
    each: tuple[float, ...]


def mean(row: RowHits, *, draws: int = 10_000, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """The percentage of a row, over its seeds, with its interval over people and seeds.

    Args:
        row: at least one seed; with one alone the interval is over people.
        draws: of the bootstrap.
        seed: of the draws.
        confidence: share of the draws within the interval.

    Raises:
        InputError: a number is out of range.
    """
    drawn = _draws([row.right], row.counted, draws, seed)
    # stretched draws of few seeds can leave the range
    return _estimate(drawn.clip(0.0, 100.0), row.percent, row, confidence, None, (0.0, 100.0))


def difference(
    first: RowHits, second: RowHits, *, draws: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """By how many points the second row is above the first, over the seeds that both have, with interval and p.

    A row without seeds is compared with every seed of the other. p is twice the smaller share of the draws on either side of
    0, at least 2 / (draws + 1). Draws of people of whom nobody was measured do not count.

    Args:
        first: such as students alone.
        second: such as students with a teacher, on the same people.
        draws: of the bootstrap.
        seed: of the draws.
        confidence: share of the draws within the interval.

    Raises:
        InputError: the rows are of other people, have no seed in common, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> from cdkd_ext.studies import RowHits, difference
        >>> counted = np.full(400, 12)
        >>> alone = RowHits(np.random.default_rng(0).binomial(12, 0.3, (3, 400)), counted, (0, 1, 2))
        >>> taught = RowHits(np.random.default_rng(1).binomial(12, 0.4, (3, 400)), counted, (0, 1, 2))
        >>> difference(alone, taught).p < 0.01
        True
    """
    same = np.array_equal(first.counted, second.counted)
    check(
        same, "second", f"{len(second.counted)} other people", f"the first row's {len(first.counted)} people"
    )
    seeds = [one for one in first.seeds or second.seeds if one in (second.seeds or first.seeds)]
    common = bool(seeds) or not (first.seeds or second.seeds)
    check(common, "second: seeds", second.seeds, f"one of the first row's, {first.seeds}")
    first, second = first.of(seeds), second.of(seeds)
    drawn = _draws([second.right, -first.right], first.counted, draws, seed)
    zero = np.float64(0)
    tail = min((drawn <= zero).sum(), (drawn >= zero).sum())
    p = min(1.0, float(2 * (tail + 1) / (len(drawn) + 1))) if _measured(first) > 1 else 1.0
    of = second if second.seeds else first
    return _estimate(drawn, second.percent - first.percent, of, confidence, p, (-100.0, 100.0))


def _draws(
    parts: Sequence[npt.NDArray[np.floating | np.integer]],
    counted: npt.NDArray[np.floating | np.integer],
    draws: int,
    seed: int,
) -> npt.NDArray[np.float64]:
    """Percentages (draws,) of the sum of (S, N) counts; people, and seeds, drawn with replacement."""
    check(draws > 0, "draws", draws, "a positive number")
    rng = np.random.default_rng(seed)
    people, seeds = len(counted), max(len(part) for part in parts)
    right = np.sum(np.broadcast_arrays(*parts), axis=0)
    # so few seeds spread less than those that there could be: the variance of S of them is (S - 1) / S of it
    stretch = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
    found = []
    for start in range(0, draws, _PART):
        count = min(_PART, draws - start)
        weights = rng.multinomial(people, np.full(people, 1 / people), count).astype(np.float64)
        shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), count) / seeds
        total = weights @ counted
        known = total > 0
        weights, shares, total = weights[known], shares[known], total[known]
        each = 100.0 * (weights @ right.T) / total[:, None]
        middle = each.mean(1)
        found.append(middle + stretch * ((each - middle[:, None]) * shares).sum(1))
    return np.concatenate(found)


def _estimate(
    drawn: npt.NDArray[np.float64],
    each: npt.NDArray[np.float64],
    row: RowHits,
    confidence: float,
    p: float | None,
    possible: tuple[float, float],
) -> Estimate:
    check(0 < confidence < 1, "confidence", confidence, "a number between 0 and 1")
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    # one person says nothing about others
    low, high = np.quantile(drawn, ends) if _measured(row) > 1 else possible
    values = tuple(float(value) for value in each)
    return Estimate(float(each.mean()), float(low), float(high), p, row.seeds, _measured(row), values)


def _measured(row: RowHits) -> int:
    return int((row.counted > 0).sum())
