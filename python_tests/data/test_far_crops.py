"""Crops of people far away."""

from __future__ import annotations

import numpy as np
import pytest

from cdkd_ext.data import crop_from_afar
from cdkd_ext.data.crops import CropRegion, crop_matrix, warp_crop


def _dot(size: tuple[int, int], x: float, y: float, deviation: float = 9.0) -> np.ndarray:
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])
    values = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * deviation**2))
    return np.repeat(values.round().astype(np.uint8)[..., None], 3, 2)


def _center(image: np.ndarray) -> tuple[float, float]:
    weights = image[..., 0].astype(np.float64)
    rows, columns = np.arange(image.shape[0])[:, None], np.arange(image.shape[1])
    return (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()


def _afar(image, size, height, **options):
    """A crop that shows the whole of an image."""
    matrix = np.array([[size[1] / image.shape[1], 0.0, 0.0], [0.0, size[0] / image.shape[0], 0.0]])
    return crop_from_afar(image, matrix, size, height, **options)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, 0.9)])
@pytest.mark.parametrize("height", [12, 17, 24, 31, 48, 95, 150])
@pytest.mark.parametrize("size", [(192, 192), (256, 192)])
def test_what_is_seen_stays_where_it_is(size, height, shift):
    for x, y in ((95.5, 95.5), (61.2, 77.7), (120.9, 100.3)):
        image = _dot((2 * size[0], 2 * size[1]), 2 * x, 2 * y, 18)
        center = _center(_afar(image, size, height, shift=shift))
        # a whole small pixel would be up to 16 of these
        assert center == pytest.approx((x, y), abs=0.3)


def test_a_rotated_crop_is_seen_like_the_crop_itself():
    image = _dot((300, 300), 170, 120, 12)
    region = CropRegion((150, 150), (220, 220), rotation=35, flip=True)
    matrix = crop_matrix(region, (192, 192))
    wanted = _center(warp_crop(image, matrix, (192, 192)))
    assert _center(crop_from_afar(image, matrix, (192, 192), 20)) == pytest.approx(wanted, abs=0.3)


def test_reducing_averages_over_the_area_of_a_pixel():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    seen = _afar(stripes, (64, 64), 32)[4:-4, 4:-4]
    assert np.abs(seen.astype(int) - 100).max() <= 1
    # a line between sampled places is not lost
    line = np.zeros((64, 64, 3), np.uint8)
    line[:, 29] = 255
    assert 40 <= _afar(line, (64, 64), 16).max() <= 70


def test_the_edges_of_a_crop_are_not_darkened():
    image = np.full((100, 100, 3), 180, np.uint8)
    matrix = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, -20.0]])
    for shift in ((0.0, 0.0), (0.99, 0.99)):
        assert np.all(crop_from_afar(image, matrix, (60, 44), 13, shift=shift) == 180)


def test_a_cameras_faults_are_those_of_the_few_pixels():
    seen = []

    def faults(crop):
        seen.append(crop.shape)
        return np.full_like(crop, 9)

    image = np.zeros((64, 48, 3), np.uint8)
    assert np.all(_afar(image, (64, 48), 16, faults=faults) == 9)
    assert seen == [(19, 15, 3)]
