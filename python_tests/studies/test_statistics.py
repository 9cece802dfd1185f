"""Intervals and p against closed forms, and against resampling that is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.studies import RowHits, difference, mean

Difference = Callable[[RowHits, RowHits], tuple[float, float]]
NORMAL = 1.96
JOINTS = 12


def row(right: np.ndarray, *, seeds: bool = True) -> RowHits:
    right = np.atleast_2d(right)
    counted = np.full(right.shape[1], JOINTS)
    return RowHits(right, counted, tuple(range(len(right))) if seeds else ())


def interval(first: RowHits, second: RowHits) -> tuple[float, float]:
    found = difference(first, second, draws=4000)
    return found.low, found.high


def test_one_network_varies_as_the_mean_over_people() -> None:
    right = np.random.default_rng(0).binomial(JOINTS, 0.4, 500)
    found = mean(row(right, seeds=False))
    error = 100 / JOINTS * right.std() / np.sqrt(len(right))
    assert found.value == pytest.approx(100 * right.mean() / JOINTS)
    assert found.high - found.low == pytest.approx(2 * NORMAL * error, rel=0.04)
    assert found.seeds == () and found.people == 500 and found.p is None


def test_people_count_by_their_joints() -> None:
    """The percentage is of joints, not a mean of people's percentages."""
    right, counted = np.array([[1, 0, 0, 0]]), np.array([1, 12, 12, 0])
    assert mean(RowHits(right, counted)).value == pytest.approx(100 / 25)


def test_seeds_vary_as_their_unbiased_variance_says() -> None:
    """Everybody alike, so that seeds are all that differs."""
    seeds = 12
    right = np.repeat(np.random.default_rng(1).normal(6, 0.5, seeds)[:, None], 50, axis=1)
    found = mean(row(right))
    error = 100 / JOINTS * right[:, 0].std(ddof=1) / np.sqrt(seeds)
    assert found.high - found.low == pytest.approx(2 * NORMAL * error, rel=0.06)


def check_pairs_people(interval: Difference) -> None:
    """Easy and hard people in both rows, and the same gain on each: the interval is narrow."""
    ease = np.random.default_rng(2).integers(0, JOINTS, 300)
    low, high = interval(row(ease), row(ease + 1))
    assert low == pytest.approx(100 / JOINTS) and high == pytest.approx(100 / JOINTS)


def check_pairs_seeds(interval: Difference) -> None:
    """Good and bad seeds in both rows, and the same gain with each: the interval is narrow."""
    quality = np.repeat(np.array([2, 5, 9])[:, None], 40, axis=1)
    low, high = interval(row(quality), row(quality + 1))
    assert low == pytest.approx(100 / JOINTS) and high == pytest.approx(100 / JOINTS)


def check_draws_seeds(interval: Difference) -> None:
    """A gain that seeds disagree about is uncertain, however many people agree."""
    gains = np.array([-2, 1, 3])
    alone = np.full((3, 500), 6)
    low, high = interval(row(alone), row(alone + gains[:, None]))
    error = 100 / JOINTS * gains.std(ddof=1) / np.sqrt(3)
    assert high - low > 2 * error


CHECKS = [check_pairs_people, check_pairs_seeds, check_draws_seeds]


@pytest.mark.parametrize("check", CHECKS)
def test_people_and_seeds_are_drawn_in_pairs(check: Callable[[Difference], None]) -> None:
    check(interval)


def wrong(first: RowHits, second: RowHits, *, people: str, seeds: str) -> tuple[float, float]:
    """A bootstrap with a mistake: what is drawn "apart" for the two rows, or not at all ("kept")."""
    rng = np.random.default_rng(0)
    number, count = second.right.shape

    def choose(size: int, how: str) -> tuple[np.ndarray, np.ndarray]:
        one = np.arange(size) if how == "kept" else rng.integers(size, size=size)
        return one, rng.integers(size, size=size) if how == "apart" else one

    found = []
    for _ in range(400):
        a, b = choose(count, people)
        s, t = choose(number, seeds)
        found.append(100 / JOINTS * (second.right[t][:, b].mean() - first.right[s][:, a].mean()))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize(
    ("people", "seeds", "check"),
    [
        ("apart", "paired", check_pairs_people),
        ("paired", "apart", check_pairs_seeds),
        ("paired", "kept", check_draws_seeds),
    ],
)
def test_resampling_that_is_wrong_is_found(
    people: str, seeds: str, check: Callable[[Difference], None]
) -> None:
    with pytest.raises(AssertionError):
        check(lambda first, second: wrong(first, second, people=people, seeds=seeds))


def test_nothing_is_found_where_nothing_is_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(150):
        ease = rng.uniform(0.2, 0.8, 80)
        first, second = (row(rng.binomial(JOINTS, ease, (3, 80))) for _ in range(2))
        found.append(difference(first, second, draws=400).p)
    p = np.array(found)
    # crossed draws of people and seeds are cautious: see Owen (2007)
    assert (p < 0.05).mean() <= 0.08
    assert 0.3 < np.median(p) < 0.85


def test_the_interval_holds_what_is_true_about_as_often_as_it_says() -> None:
    """Seeds with an effect of their own, and people who gain more than others."""
    rng = np.random.default_rng(4)
    truth, inside = 4.0, 0
    for _ in range(150):
        gain = 0.48 + rng.normal(0, 0.15, (8, 1)) + rng.normal(0, 1.0, 100) + rng.normal(0, 1.0, (8, 100))
        alone = np.full((8, 100), 5.0)
        found = difference(row(alone), row((alone + gain).clip(0, JOINTS)), draws=400)
        inside += found.low <= truth <= found.high
    assert inside / 150 > 0.9


def test_a_large_difference_is_certain_and_its_sign_is_the_second_rows() -> None:
    rng = np.random.default_rng(5)
    first, second = (row(rng.binomial(JOINTS, share, (3, 300))) for share in (0.3, 0.4))
    there, back = difference(first, second), difference(second, first)
    assert there.value == pytest.approx(second.percent.mean() - first.percent.mean())
    assert there.low > 5 and there.p is not None and there.p < 0.001
    assert (back.value, back.p) == (pytest.approx(-there.value), there.p)
    assert (back.low, back.high) == (pytest.approx(-there.high), pytest.approx(-there.low))
    assert there.each == pytest.approx(tuple(second.percent - first.percent))


def test_rows_are_compared_over_the_seeds_that_both_have() -> None:
    right = np.random.default_rng(6).integers(0, JOINTS, (3, 20))
    counted = np.full(20, JOINTS)
    found = difference(RowHits(right, counted, (0, 1, 2)), RowHits(right[::-1], counted, (2, 1, 0)))
    assert found.seeds == (0, 1, 2) and (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    part = difference(RowHits(right, counted, (0, 1, 2)), RowHits(right[1:2], counted, (1,)))
    assert part.seeds == (1,) and part.value == 0
    off_shelf = RowHits(right[:1], counted)
    every = difference(off_shelf, RowHits(right, counted, (0, 1, 2)))
    assert every.seeds == (0, 1, 2) and every.each[0] == 0


def test_the_same_draws_every_time() -> None:
    rng = np.random.default_rng(7)
    first, second = (row(rng.binomial(JOINTS, 0.5, (2, 30))) for _ in range(2))
    assert difference(first, second) == difference(first, second)
    assert difference(first, second) != difference(first, second, seed=1)
    wide, narrow = (difference(first, second, confidence=share) for share in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_what_cannot_be_compared_is_refused() -> None:
    right, counted = np.ones((2, 4), int), np.full(4, 2)
    first = RowHits(right, counted, (0, 1))
    with pytest.raises(InputError, match="second: expected the first row's 4 people"):
        difference(first, RowHits(right, np.full(4, 3), (0, 1)))
    with pytest.raises(InputError, match="second: seeds: expected one of the first row's"):
        difference(first, RowHits(right, counted, (2, 3)))
    with pytest.raises(InputError, match="right: expected shape"):
        RowHits(right, counted, (0,))
    with pytest.raises(InputError, match="right: expected at least 0"):
        RowHits(right * 3, counted, (0, 1))
    with pytest.raises(InputError, match="counted: expected at least one joint"):
        RowHits(right * 0, counted * 0, (0, 1))
    with pytest.raises(InputError, match="draws: expected a positive number"):
        mean(first, draws=0)
    with pytest.raises(InputError, match="confidence: expected a number between"):
        mean(first, confidence=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float64])
def test_the_type_of_the_counts_does_not_matter(dtype: type) -> None:
    rng = np.random.default_rng(0)
    alone, taught = (rng.binomial(JOINTS, share, (3, 2000)) for share in (0.3, 0.4))
    expected = difference(row(alone), row(taught), draws=200)
    found = difference(row(alone.astype(dtype)), row(taught.astype(dtype)), draws=200)
    assert found == expected and 5 < found.low < found.value < found.high < 15
    counted = np.full(2000, JOINTS, dtype)
    assert mean(RowHits(alone.astype(dtype), counted, (0, 1, 2)), draws=200).value == pytest.approx(30, abs=2)


def test_draws_of_people_of_whom_nobody_was_measured_do_not_count() -> None:
    counted = np.zeros(100)
    counted[:3] = 14
    found = mean(RowHits(np.where(counted > 0, 13, 0)[None], counted))
    assert found.people == 3
    assert (found.low, found.value, found.high) == pytest.approx((1300 / 14, 1300 / 14, 1300 / 14))


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_person_says_nothing_about_others(seeds: int) -> None:
    counted = np.array([14, 0])
    first, second = (
        RowHits(np.full((seeds, 2), (right, 0)), counted, tuple(range(seeds))) for right in (5, 6)
    )
    found = difference(first, second)
    assert (found.low, found.high, found.p, found.people) == (-100, 100, 1, 1)
    assert found.value == pytest.approx(100 / 14)
    alone = mean(first)
    assert (alone.low, alone.high) == (0, 100) and alone.value == pytest.approx(500 / 14)
