from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.data import (
    CropRegion,
    crop_matrix,
    crops_of_boxes,
    fit_aspect,
    invert_affine,
    region_from_box,
    transform_points,
    warp_crop,
)
from cdkd_ext.data.crops import cut_for_crop
from cdkd_ext.errors import InputError

coordinates = st.floats(-500, 500)
lengths = st.floats(1, 800)
sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))


@st.composite
def regions(draw: st.DrawFn, size: tuple[int, int]) -> CropRegion:
    height = draw(lengths)
    return CropRegion(
        (draw(coordinates), draw(coordinates)),
        (height, height * size[1] / size[0]),
        draw(st.floats(-180, 180)),
        draw(st.booleans()),
    )


def three_point_matrix(region: CropRegion, size: tuple[int, int], image_width: int) -> np.ndarray:
    """HRNet's construction, step by step: mirror the picture and the centre, then match three points."""
    x, y = region.center
    if region.flip:
        x = image_width - x - 1
    angle = math.radians(region.rotation)
    half = region.size[1] / 2
    up = np.array([math.sin(angle) * half, -math.cos(angle) * half])
    center = np.array([x, y])
    height, width = size

    def third(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        along = a - b
        return b + np.array([-along[1], along[0]])

    source = [center, center + up, third(center, center + up)]
    middle = np.array([width * 0.5, height * 0.5])
    above = middle + np.array([0, -width * 0.5])
    target = [middle, above, third(middle, above)]
    system = np.array([[*point, 1] for point in source])
    matrix = np.linalg.solve(system, np.array(target)).T
    mirror = np.array([[-1, 0, image_width - 1], [0, 1, 0], [0, 0, 1]]) if region.flip else np.eye(3)
    return matrix @ mirror


def test_golden_crop() -> None:
    region = region_from_box([10, 20, 40, 80], (64, 48))
    # 40 x 80 grows to 60 x 80 for the aspect ratio 3:4, then by 1.25
    assert region == CropRegion((30, 60), (100, 75))
    np.testing.assert_allclose(crop_matrix(region, (64, 48)), [[0.64, 0, 4.8], [0, 0.64, -6.4]], atol=1e-12)


def test_golden_quarter_turn() -> None:
    region = CropRegion((30, 60), (100, 100), rotation=90)
    # what lies to the right of the centre in the picture points up in the crop
    np.testing.assert_allclose(crop_matrix(region, (50, 50)), [[0, 0.5, -5], [-0.5, 0, 40]], atol=1e-12)


@given(st.data(), sizes, st.integers(1, 1000))
def test_matches_three_points(data: st.DataObject, size: tuple[int, int], image_width: int) -> None:
    region = data.draw(regions(size))
    expected = three_point_matrix(region, size, image_width)
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(crop_matrix(region, size), expected, atol=1e-9 * scale)


@given(st.tuples(coordinates, coordinates, lengths, lengths), sizes, st.floats(0.5, 2))
def test_region_holds_the_box_at_the_crop_aspect(
    box: tuple[float, float, float, float], size: tuple[int, int], padding: float
) -> None:
    region = region_from_box(box, size, padding)
    height, width = region.size[0] / padding, region.size[1] / padding
    assert width / height == pytest.approx(size[1] / size[0])
    assert height >= box[3] * (1 - 1e-9) and width >= box[2] * (1 - 1e-9)
    assert height == pytest.approx(box[3]) or width == pytest.approx(box[2])
    assert region.center == (box[0] + box[2] / 2, box[1] + box[3] / 2)


@given(st.data(), sizes, st.integers(1, 8))
def test_larger_crop_has_multiple_coordinates(
    data: st.DataObject, size: tuple[int, int], multiple: int
) -> None:
    region = data.draw(regions(size))
    points = np.array(data.draw(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=5)))
    small = transform_points(points, crop_matrix(region, size))
    large = transform_points(points, crop_matrix(region, (size[0] * multiple, size[1] * multiple)))
    np.testing.assert_allclose(small * multiple, large, rtol=1e-9, atol=1e-6)


@given(st.data(), sizes)
def test_inverse(data: st.DataObject, size: tuple[int, int]) -> None:
    matrix = crop_matrix(data.draw(regions(size)), size)
    points = np.array([[0.0, 0.0], [13.0, -4.5], [300.0, 200.0]])
    back = transform_points(transform_points(points, matrix), invert_affine(matrix))
    np.testing.assert_allclose(back, points, atol=1e-6)


def test_points_keep_shape_and_dtype() -> None:
    points = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    moved = transform_points(points, np.array([[2, 0, 1], [0, 3, -1]]))
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved[..., 0], points[..., 0] * 2 + 1)
    np.testing.assert_array_equal(moved[..., 1], points[..., 1] * 3 - 1)


def blob(size: tuple[int, int], x: float, y: float, spread: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    brightness = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    return np.repeat(brightness.round().astype(np.uint8)[..., None], 3, axis=2)


def centroid(plane: np.ndarray) -> tuple[float, float]:
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
    weight = plane.astype(float)
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 37.0, -120.0])
@pytest.mark.parametrize("size", [(32, 32), (64, 48), (96, 128)])
def test_pixels_go_where_points_go(size: tuple[int, int], rotation: float, flip: bool) -> None:
    x, y = 70.3, 55.6
    picture = blob((120, 160), x, y, 5.0)
    region = CropRegion((76.0, 60.0), (100.0, 100.0 * size[1] / size[0]), rotation, flip)
    matrix = crop_matrix(region, size)
    crop = warp_crop(picture, matrix, size)
    assert crop.shape == (*size, 3) and crop.dtype == np.uint8
    expected = transform_points(np.array([x, y]), matrix)
    np.testing.assert_allclose(centroid(crop[..., 0]), expected, atol=0.06)


def test_identity_crop_is_exact_and_outside_is_black() -> None:
    picture = np.random.default_rng(0).integers(1, 256, (30, 40, 3), dtype=np.uint8)
    shifted = warp_crop(picture, np.array([[1.0, 0, 5], [0, 1, 2]]), (30, 50))
    np.testing.assert_array_equal(shifted[2:, 5:45], picture[:28])
    assert not shifted[:2].any() and not shifted[:, :5].any() and not shifted[:, 45:].any()


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1), (math.nan, 0, 5, 5), (0, 0, math.inf, 5)])
def test_bad_box(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="box: expected finite"):
        region_from_box(box, (32, 32))


def test_bad_padding_and_matrix() -> None:
    with pytest.raises(InputError, match="padding"):
        region_from_box((0, 0, 5, 5), (32, 32), 0)
    image = np.zeros((8, 8, 3), np.uint8)
    for matrix in (
        [[1.0, 2, 0], [2, 4, 0]],
        [[0.5, 0, math.nan], [0, 0.5, 0]],
        [[0.5, 0, 0], [0, math.inf, 0]],
    ):
        with pytest.raises(InputError, match="matrix: expected an invertible"):
            invert_affine(np.array(matrix))
        with pytest.raises(InputError, match="matrix: expected an invertible"):
            warp_crop(image, np.array(matrix), (4, 4))


def test_fit_aspect() -> None:
    assert fit_aspect((10, 40), (256, 192)) == (pytest.approx(40 / 0.75), 40)
    assert fit_aspect((40, 10), (256, 192)) == (40, 30)


@pytest.mark.parametrize("seed", range(60))
def test_a_cut_for_a_crop_holds_all_that_it_shows(seed):
    """Within one of 255: where the origin is decides how OpenCV 5 rounds coordinates."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*rng.integers(1, 500, 2), 3), dtype=np.uint8)
    center = rng.uniform(-100, 600, 2)
    height = rng.uniform(1, 500)
    region = CropRegion(tuple(center), (height, height * 0.75), rng.uniform(-180, 180), bool(rng.integers(2)))
    matrix = crop_matrix(region, (64, 48))
    part, moved = cut_for_crop(image, matrix, (64, 48))
    expected = warp_crop(image, matrix, (64, 48), "linear").astype(int)
    found = warp_crop(part, moved, (64, 48), "linear") if part.size else np.zeros_like(expected)
    assert np.abs(found - expected).max() <= 1
    assert part.base is not None and part.size <= image.size


@pytest.mark.parametrize("shape", [(200, 40_000), (40_000, 200)])
def test_images_longer_than_opencv_4_warps(shape):
    rng = np.random.default_rng(0)
    image = np.zeros((*shape, 3), np.uint8)
    end = (slice(max(0, shape[0] - 300), None), slice(max(0, shape[1] - 300), None))
    image[end] = rng.integers(0, 256, image[end].shape)
    offset = np.array([end[1].start, end[0].start])
    matrix = crop_matrix(CropRegion(tuple(offset + 100.0), (80, 60), 20), (64, 48))
    own = crop_matrix(CropRegion((100.0, 100.0), (80, 60), 20), (64, 48))
    whole, alone = (
        warp_crop(one, map_, (64, 48)).astype(int)
        for one, map_ in ((image, matrix), (image[end].copy(), own))
    )
    assert np.abs(whole - alone).max() <= 1 and alone.std() > 20
    away = crop_matrix(CropRegion((-1000.0, -1000.0), (80, 60)), (64, 48))
    assert not warp_crop(image, away, (64, 48)).any()


def test_a_crop_that_shows_too_much_for_opencv_4_says_so(monkeypatch):
    def warp(*arguments, **options):
        raise cv2.error("SHRT_MAX")

    monkeypatch.setattr(cv2, "warpAffine", warp)
    image = np.zeros((10, 40_000, 3), np.uint8)
    matrix = crop_matrix(CropRegion((20_000.0, 5.0), (40_000, 40_000)), (32, 32))
    with pytest.raises(InputError, match=r"crop: expected one that shows at most 32767 pixels .* 40000x10"):
        warp_crop(image, matrix, (32, 32), "linear")


def test_the_corner_pixels_of_an_unbiased_crop_lie_on_the_corners_of_the_region() -> None:
    region = CropRegion((50.0, 40.0), (64.0, 32.0))
    matrix = crop_matrix(region, (8, 4), unbiased=True)
    corners = np.array([[34.0, 8.0], [66.0, 72.0]])
    np.testing.assert_allclose(transform_points(corners, matrix), [[0, 0], [3, 7]], atol=1e-12)


def test_the_unbiased_crop_of_a_mirrored_region_is_the_mirrored_crop() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (20, 2))
    plain, flipped = (
        crop_matrix(CropRegion((50.0, 40.0), (64.0, 48.0), flip=flip), (64, 48), unbiased=True)
        for flip in (False, True)
    )
    x, y = transform_points(points, plain).T
    np.testing.assert_allclose(transform_points(points, flipped), np.column_stack([47 - x, y]), atol=1e-9)


@given(
    boxes=st.lists(st.tuples(coordinates, coordinates, lengths, lengths), min_size=1, max_size=5),
    size=st.sampled_from([(1, 1), (32, 32), (24, 40), (64, 48)]),
    padding=st.floats(0.5, 2),
    resample=st.sampled_from(["area", "linear"]),
    unbiased=st.booleans(),
    mirrored=st.booleans(),
)
def test_crops_of_boxes_are_those_of_each_box(boxes, size, padding, resample, unbiased, mirrored) -> None:
    """To the bit, also of images that are views of others."""
    unbiased = unbiased and min(size) > 1
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    if mirrored:
        image = image[:, ::-1]
    crops, to_image = crops_of_boxes(image, np.array(boxes), size, padding, resample, unbiased=unbiased)
    assert crops.shape == (len(boxes), *size, 3) and crops.dtype == np.uint8
    for box, crop, back in zip(boxes, crops, to_image, strict=True):
        matrix = crop_matrix(region_from_box(box, size, padding), size, unbiased=unbiased)
        np.testing.assert_array_equal(back, invert_affine(matrix))
        np.testing.assert_array_equal(crop, warp_crop(image, matrix, size, resample))


@pytest.mark.parametrize("box", [(0, 0, 1e-320, 1e-320), (0, 0, 1e308, 1e308), (1e308, 0, 1e-200, 1e-200)])
def test_boxes_beyond_float64_are_named(box) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(
        InputError, match=r"boxes\[1\]: expected a box of which a crop can be made in float64"
    ):
        crops_of_boxes(image, np.array([(0, 0, 4, 4), box], np.float64), (32, 32))
