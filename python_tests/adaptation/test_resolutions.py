"""Which resolutions an adaptation learns."""

from __future__ import annotations

import numpy as np
import pytest

from cdkd_ext.adaptation import Resolutions
from cdkd_ext.errors import InputError


def test_sizes_are_read():
    assert Resolutions.parse("32") == Resolutions(32, 32, 0.1)
    assert Resolutions.parse(24) == Resolutions(24, 24, 0.1)
    assert Resolutions.parse(" 24-96", 0.0) == Resolutions(24, 96, 0.0)
    assert Resolutions.parse("full") == Resolutions(None, None, 0.1)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("small", "size: expected pixels such as 32, a range such as 24-96, or full, got 'small'"),
        ("96-24", "size: expected at least 8 pixels, the smaller first, got 96-24"),
        ("4", "size: expected at least 8 pixels"),
        ("32x32", "size: expected pixels"),
    ],
)
def test_other_sizes_are_refused(size, message):
    with pytest.raises(InputError, match=message):
        Resolutions.parse(size)


def test_resolutions_are_drawn_evenly_in_octaves():
    rng = np.random.default_rng(0)
    resolutions = Resolutions.parse("16-64", 0.25)
    drawn = [resolutions.draw(rng) for _ in range(20_000)]
    heights = np.array([height for height in drawn if height is not None])
    assert len(drawn) - len(heights) == pytest.approx(5000, abs=250)
    assert heights.min() == 16 and heights.max() == 64
    assert (heights < 32).mean() == pytest.approx(0.5, abs=0.02)


def test_one_size_is_always_drawn_but_for_full_resolution():
    rng = np.random.default_rng(0)
    assert {Resolutions.parse("32").draw(rng) for _ in range(300)} == {32, None}
    assert {Resolutions.parse("full").draw(rng) for _ in range(9)} == {None}
    assert {Resolutions.parse("32", 0).draw(rng) for _ in range(300)} == {32}


def test_a_network_is_larger_than_what_it_learns():
    with pytest.raises(InputError, match="size: expected less than the network's own 64 pixels, got 64"):
        Resolutions.parse("32-64").check_below(64)
    Resolutions.parse("full").check_below(64)


def test_a_few_resolutions_are_watched():
    assert Resolutions.parse("24-96").watched() == [24, 48, 96]
    assert Resolutions.parse("32").watched() == [32]
    assert Resolutions.parse("full").watched() == [None]
