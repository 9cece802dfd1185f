from __future__ import annotations

import pytest

from bench.harness.spread import Spread, added, digits, ratio, spread


def test_median_and_quartiles_of_unsorted_samples():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_ratio_pairs_the_samples_of_a_round():
    # the second and third rounds were disturbed: the medians alone would say 3
    assert ratio([2.0, 20.0, 60.0], to=[1.0, 10.0, 30.0]) == Spread(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], to=[1.0])


def test_parts_add_up_round_by_round():
    assert added([1.0, 2.0], [10.0, 20.0]) == [11.0, 22.0]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.004, "0.00"),
        (1.234, "1.23"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1234.5, "1234"),
    ],
)
def test_three_digits(number, text):
    assert digits(number) == text


def test_text_of_a_spread():
    assert str(Spread(12.34, 9.0, 120.0)) == "12.3 (9.00 to 120)"
