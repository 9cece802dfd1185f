"""Crops by "area": means over what a pixel covers, at the place where the image has it."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cdkd_ext.data import CropRegion, crop_matrix, invert_affine, transform_points, warp_crop
from cdkd_ext.data.device_crops import warp_crops
from cdkd_ext.errors import InputError

SIZES = [(24, 24), (64, 48), (100, 75), (256, 256)]
# images of a size that a test can hold
REDUCED = [(size, ratio) for size in SIZES for ratio in (1.3, 3.7, 7.9, 17.3, 29.0) if ratio * size[0] < 1000]
ROTATIONS = [0.0, 33.0, -120.0]


def dots(points: np.ndarray, size: tuple[int, int], radius: float) -> np.ndarray:
    """White discs on black with soft rims, which an image of (height, width) pixels shows."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    light = np.zeros(size)
    for x, y in points:
        light = np.maximum(light, np.clip(radius + 0.5 - np.hypot(columns - x, rows - y), 0, 1))
    return np.repeat((255 * light).round().astype(np.uint8)[..., None], 3, 2)


def line(normal: float, offset: float, size: tuple[int, int], width: float) -> np.ndarray:
    """A bright line at `offset` from the image's corner along a direction."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    away = np.abs(columns * math.cos(normal) + rows * math.sin(normal) - offset)
    light = np.clip(width / 2 + 0.5 - away, 0, 1)
    return np.repeat((255 * light).round().astype(np.uint8)[..., None], 3, 2)


def rendered(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], samples: int = 24) -> np.ndarray:
    """The mean of the bilinear image over each pixel's square, from many samples, in float64 and without OpenCV."""
    inverse = invert_affine(matrix)
    steps = (np.arange(samples) + 0.5) / samples - 0.5
    padded = np.pad(image[..., 0].astype(float), 1)
    result = np.zeros(size)
    for row in range(size[0]):
        y, x = np.meshgrid(row + steps, (np.arange(size[1])[:, None] + steps).ravel(), indexing="ij")
        places = transform_points(np.stack([x, y], -1), inverse) + 1
        places = np.clip(places, 0, np.array(padded.shape[::-1]) - 1.001)
        whole = places.astype(int)
        (fx, fy), (ix, iy) = np.moveaxis(places - whole, -1, 0), np.moveaxis(whole, -1, 0)
        above = padded[iy, ix] * (1 - fx) + padded[iy, ix + 1] * fx
        below = padded[iy + 1, ix] * (1 - fx) + padded[iy + 1, ix + 1] * fx
        value = above * (1 - fy) + below * fy
        result[row] = value.reshape(samples, size[1], samples).mean((0, 2))
    return result


def centroid(plane: np.ndarray) -> tuple[float, float]:
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
    weight = plane.astype(float)
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize(("rotation", "flip"), [(0.0, False), (33.0, True), (-120.0, False)])
@pytest.mark.parametrize(("size", "ratio"), REDUCED)
def test_a_dot_stays_where_it_is(size, ratio, rotation, flip):
    """A shift by half a source pixel, or by half a sample, would be seen."""
    height = ratio * size[0]
    center = (height * 0.63, height * 0.58)
    shown = CropRegion(center, (height, height * size[1] / size[0]), rotation, flip)
    matrix = crop_matrix(shown, size)
    point = np.array([center[0] + 0.11 * height + 0.37, center[1] - 0.07 * height + 0.21])
    side = math.ceil(1.3 * height)
    image = dots(point[None], (side, side), max(3.0, 2 * ratio))
    exact = np.array(centroid(image[..., 0]))
    crop = warp_crop(image, matrix, size, "area")
    np.testing.assert_allclose(centroid(crop[..., 0]), transform_points(exact, matrix), atol=0.02)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize(
    ("size", "ratio"), [((32, 24), 4.3), ((24, 24), 11.0), ((24, 24), 18.7), ((64, 64), 1.7)]
)
def test_crops_are_those_of_a_supersampled_rendering(size, ratio, rotation):
    height = ratio * size[0]
    side = math.ceil(height)
    shown = CropRegion((side * 0.48, side * 0.53), (height, height * size[1] / size[0]), rotation)
    matrix = crop_matrix(shown, size)
    rng = np.random.default_rng(0)
    image = dots(rng.uniform(0, side, (12, 2)), (side, side), 1.2 * ratio)
    image = np.maximum(image, line(0.7, side * 0.6, (side, side), ratio))
    # what is not turned is of pixels that are squares
    expected = rendered(image, matrix, size) if rotation else exact_means(image, matrix, size)[..., 0]
    area = warp_crop(image, matrix, size, "area")[..., 0]
    linear = warp_crop(image, matrix, size, "linear")[..., 0]
    # what is averaged down first is blurred by up to an eighth of a pixel more, and few samples make a coarse mean
    mean, most = (1.5, 20) if ratio >= 16 else (0.6, 10) if ratio < 2 else (0.6, 5)
    assert np.abs(area - expected).mean() < mean
    assert np.abs(area - expected).max() < most
    if ratio > 2:
        assert np.abs(linear - expected).mean() > 5 * np.abs(area - expected).mean()


def shares(scale: float, offset: float, count: int, size: int) -> np.ndarray:
    """(count, size): how much of each pixel of a crop each of an image's covers, along one axis."""
    half = max(0.5 / abs(scale), 0.5)
    found = np.zeros((count, size))
    for pixel in range(count):
        middle = (pixel - offset) / scale
        for place in range(size):
            found[pixel, place] = max(0.0, min(middle + half, place + 0.5) - max(middle - half, place - 0.5))
    return found / (2 * half)


def exact_means(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What pixels of a crop that is not turned cover, in float64."""
    rows = shares(matrix[1, 1], matrix[1, 2], size[0], image.shape[0])
    columns = shares(matrix[0, 0], matrix[0, 2], size[1], image.shape[1])
    return np.einsum("yh,hwc,xw->yxc", rows, image.astype(float), columns)


MAPS = {
    "inside": (0.37, 2.3, 0.37, -1.9),
    "mirrored": (-0.21, 27.7, 0.21, 0.4),
    "upside down": (0.11, 3.1, -0.11, 20.3),
    "beyond the corners": (0.4, 12.6, 0.4, 11.3),
    "one side is not reduced": (0.31, 0.2, 1.7, -55.0),
    "hardly reduced": (0.999, -20.0, 0.999, -14.0),
    "all of the image in two pixels": (0.021, 7.2, 0.021, 9.9),
    "far away": (0.3, 4000.0, 0.3, 0.0),
    "a speck": (1e-9, 12.0, 1e-9, 12.0),
}


VIEWS = {
    "": lambda image: image,
    "of every other row": lambda image: np.repeat(image, 2, 0)[::2],
    "of other channels": lambda image: np.tile(image, 2)[..., 4:1:-1],
}


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("view", VIEWS)
def test_means_are_those_of_what_a_pixel_covers(kind, view):
    x, left, y, top = MAPS[kind]
    matrix = np.array([[x, 0.0, left], [0.0, y, top]])
    image = np.random.default_rng(4).integers(0, 256, (70, 64, 3), dtype=np.uint8)
    image = VIEWS[view](image)
    crop = warp_crop(image, matrix, (24, 26), "area")
    assert np.abs(crop - exact_means(image, matrix, (24, 26))).max() < 0.5001
    assert crop.any() == (kind not in ("far away", "a speck"))


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_every_processor_gives_the_same_bytes(isa, tmp_path):
    script = """
import hashlib, numpy as np
from cdkd_ext.data import warp_crop
image = np.random.default_rng(5).integers(0, 256, (300, 311, 3), dtype=np.uint8)
crops = [warp_crop(image, np.array([[s, 0, 0.3], [0, s, 1.7]]), (32, 32), "area") for s in np.linspace(0.1, 0.9, 40)]
print(hashlib.sha256(np.stack(crops)).hexdigest())
"""
    own, other = (
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **changed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for changed in ({}, {"CDKD_ISA": isa})
    )
    assert own == other and len(own) == 65


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("scale", [1.0, 1.001, 2.7])
def test_what_is_not_reduced_is_linear(scale, rotation):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    matrix = crop_matrix(CropRegion((31.2, 22.7), (32 / scale, 32 / scale), rotation, flip=True), (32, 32))
    np.testing.assert_array_equal(
        warp_crop(image, matrix, (32, 32), "area"), warp_crop(image, matrix, (32, 32), "linear")
    )


@pytest.mark.parametrize("ratio", [2, 3, 8, 24])
def test_whole_ratios_give_means_of_blocks(ratio):
    """Pixel i of the crop is centred on pixel `ratio` * i of the image: odd blocks lie around it."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (24 * ratio + 60, 24 * ratio + 60, 3), dtype=np.uint8)
    matrix = np.array([[1 / ratio, 0, 0], [0, 1 / ratio, 0]])
    crop = warp_crop(image, matrix, (24, 24), "area").astype(float)
    start = ratio - ratio // 2
    blocks = image[start : start + 22 * ratio, start : start + 22 * ratio].astype(float)
    means = blocks.reshape(22, ratio, 22, ratio, 3).mean((1, 3))
    if ratio % 2:
        assert np.abs(crop[1:23, 1:23] - means).max() <= 1
    # an even block lies half a pixel to the side; the right place is nearer
    shifted = np.abs(crop[1:23, 1:23] - means).mean()
    assert shifted < (0.6 if ratio % 2 else 128 / ratio)


def test_extreme_maps_are_sampled_too():
    image = np.full((30, 50, 3), 200, np.uint8)
    for height in (1e4, 1e6, 1e9):
        matrix = crop_matrix(CropRegion((25.0, 15.0), (height, height)), (32, 32))
        assert warp_crop(image, matrix, (32, 32), "area").max() <= 200
    away = crop_matrix(CropRegion((-9000.0, 15.0), (2000.0, 2000.0)), (32, 32))
    assert not warp_crop(image, away, (32, 32), "area").any()
    with pytest.raises(InputError, match="resample: expected one of 'area', 'linear', got 'cubic'"):
        warp_crop(image, away, (32, 32), "cubic")


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_the_device_s_crops_are_the_same_to_a_few_grey_levels(rotation):
    rng = np.random.default_rng(3)
    image = dots(rng.uniform(0, 200, (25, 2)), (200, 190), 6.0)
    size = (32, 24)
    regions = [CropRegion((95.0, 98.0), (height, height * 0.75), rotation) for height in (30.0, 110.0, 150.0)]
    matrices = [crop_matrix(region, size) for region in regions]
    to_source = torch.from_numpy(np.stack([invert_affine(matrix) for matrix in matrices]).astype(np.float32))
    source = torch.from_numpy(image.transpose(2, 0, 1).copy()).expand(3, -1, -1, -1)
    found = warp_crops(source, to_source, size, samples=5).permute(0, 2, 3, 1).numpy().astype(int)
    for crop, matrix in zip(found, matrices, strict=True):
        expected = warp_crop(image, matrix, size, "area").astype(int)
        assert np.abs(crop - expected).mean() < 1 and np.abs(crop - expected).max() <= 12
    # the first region is not reduced
    linear = warp_crops(source, to_source, size).permute(0, 2, 3, 1).numpy().astype(int)
    np.testing.assert_array_equal(found[0], linear[0])
    assert np.abs(found[2] - linear[2]).mean() > 2
