"""Crops of people far away."""

from __future__ import annotations

import numpy as np
import pytest

from cdkd_ext.adaptation import Resolutions, seen_from_afar
from cdkd_ext.errors import InputError


def _dot(size: tuple[int, int], x: float, y: float, deviation: float = 9.0) -> np.ndarray:
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])
    values = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * deviation**2))
    return np.repeat(values.round().astype(np.uint8)[..., None], 3, 2)


def _center(image: np.ndarray) -> tuple[float, float]:
    weights = image[..., 0].astype(np.float64)
    rows, columns = np.arange(image.shape[0])[:, None], np.arange(image.shape[1])
    return (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()


@pytest.mark.parametrize("height", [12, 17, 24, 31, 48, 95, 150])
@pytest.mark.parametrize("size", [(192, 192), (256, 192)])
def test_what_is_seen_stays_where_it_is(size, height):
    for x, y in ((95.5, 95.5), (61.2, 77.7), (120.9, 100.3)):
        center = _center(seen_from_afar(_dot(size, x, y), height))
        # a whole small pixel would be up to 16 of these
        assert center == pytest.approx((x, y), abs=0.3)


def test_reducing_averages_over_the_area_of_a_pixel():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.all(seen_from_afar(stripes, 32) == 100)
    # what a pixel wide lies between sampled places is not lost
    line = np.zeros((64, 64, 3), np.uint8)
    line[:, 5] = 255
    assert 48 <= seen_from_afar(line, 16).max() <= 64


def test_full_resolution_is_the_crop_itself():
    crop = np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8)
    assert seen_from_afar(crop, 48) is crop and seen_from_afar(crop, 99) is crop
    small = seen_from_afar(crop, 12)
    assert small.shape == crop.shape and small.dtype == np.uint8


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
