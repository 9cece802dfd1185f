"""What the report says of a difference: beyond chance or not, and in which direction."""

from __future__ import annotations

import pytest

from cdkd_ext.demo.arms import ALONE, DISTILLED
from cdkd_ext.demo.measure import Comparison
from cdkd_ext.demo.report import _comparison_row, _in_words
from cdkd_ext.studies import Estimate


def comparison(value, p):
    return Comparison(
        "one against another", DISTILLED, ALONE, Estimate(value, value - 1, value + 1, p, (0,), 9, (value,))
    )


@pytest.mark.parametrize(
    ("value", "p", "expected"),
    [
        (5.04, 0.0002, "5.0 points more, beyond chance (p < 0.001)."),
        (-2.0, 0.004, "2.0 points less, beyond chance (p = 0.004)."),
        (0.5, 0.01, "0.5 points more, which chance alone may give (p = 0.010)."),
        (-0.3, 0.6, "0.3 points less, which chance alone may give (p = 0.600)."),
    ],
)
def test_a_difference_in_words(value, p, expected):
    assert _in_words(comparison(value, p)) == f"- one against another: {expected}"


def test_a_difference_in_the_table():
    assert (
        _comparison_row(comparison(1.5, 0.25)) == "| one against another | +1.50 | +0.50 to +2.50 | 0.250 |"
    )
    assert _comparison_row(comparison(1.5, 0.0004)).endswith(" | < 0.001 |")
