"""Crops of a person: from a box to an affine map, in HRNet's convention.

The centre of the region lands on (width / 2, height / 2) of the crop, and pixel centres are integers. A crop
n times as large therefore has coordinates that are exactly n times as large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext._C import area_crop
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.resampling import DEFAULT_RESAMPLE, RESAMPLINGS, Resample

# part of the fingerprints of stored crops; to be raised when a change here changes a pixel
VERSION = 2
_LARGEST_SIDE = 32_767  # of what OpenCV 4 warps
_FEWER = (
    f"one that shows at most {_LARGEST_SIDE} pixels of the image's width and height, as OpenCV 4 warps them"
)
_AROUND = 2  # pixels that bilinear sampling and its rounding can reach
# beyond twice as many samples on a side of a crop's pixel, the image is averaged down to no less than these first
_FEWEST_SAMPLES = 8
_COARSEST = 3  # samples on a side that make a mean of a little more than a pixel
_SAME = 1e-9  # by which a scale of 1 may be off

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CropRegion:
    """The part of an image that becomes a crop.

    Attributes:
        center: (x, y) in image pixels.
        size: (height, width) in image pixels, positive.
        rotation: degrees; a positive angle turns the image counter-clockwise in the crop.
        flip: whether the image is mirrored left to right about the centre, before the rotation.
    """

    center: tuple[float, float]
    size: tuple[float, float]
    rotation: float = 0.0
    flip: bool = False


def region_from_box(
    box: Sequence[float] | FloatArray, crop_size: tuple[int, int], padding: float = 1.25
) -> CropRegion:
    """Return the region around a box: grown to the crop's aspect ratio, then by `padding`.

    Args:
        box: (x, y, width, height) in image pixels, width and height positive.
        crop_size: (height, width) of the crop, for its aspect ratio.
        padding: factor on both sides.

    Raises:
        InputError: the box is empty or not finite.
    """
    x, y, width, height = (float(value) for value in box)
    check(
        all(map(math.isfinite, (x, y, width, height))) and width > 0 and height > 0,
        "box",
        (x, y, width, height),
        "finite (x, y, width, height) with positive width and height",
    )
    check(padding > 0, "padding", padding, "a positive number")
    size = fit_aspect((height, width), crop_size)
    return CropRegion((x + width / 2, y + height / 2), (size[0] * padding, size[1] * padding))


def fit_aspect(size: tuple[float, float], crop_size: tuple[int, int]) -> tuple[float, float]:
    """Return the smallest (height, width) that holds `size` and has the aspect ratio of `crop_size`."""
    height, width = size
    aspect = crop_size[1] / crop_size[0]
    return max(height, width / aspect), max(width, height * aspect)


def crop_matrix(
    region: CropRegion, crop_size: tuple[int, int], *, unbiased: bool = False
) -> npt.NDArray[np.float64]:
    """Return the (2, 3) affine map from image pixels to pixels of a crop of (height, width) `crop_size`.

    Args:
        region: what becomes the crop.
        crop_size: (height, width).
        unbiased: the centres of the crop's corner pixels lie on the corners of the region (Huang et al., UDP), so that the
            region's centre is the crop's, and a mirrored crop the crop of the mirrored region.
    """
    height, width = crop_size
    if unbiased:
        scales = (width - 1) / region.size[1], (height - 1) / region.size[0]
        center = (width - 1) / 2, (height - 1) / 2
    else:
        # HRNet takes the scale from the widths alone; the region has the crop's aspect ratio
        scales = (width / region.size[1],) * 2
        center = width / 2, height / 2
    angle = math.radians(region.rotation)
    cosine, sine = math.cos(angle), math.sin(angle)
    mirror = -1.0 if region.flip else 1.0
    linear = np.array(
        [
            [mirror * (scales[0] * cosine), scales[0] * sine],
            [-mirror * (scales[1] * sine), scales[1] * cosine],
        ]
    )
    return np.column_stack([linear, np.array(center) - linear @ np.array(region.center)])


def invert_affine(matrix: FloatArray) -> npt.NDArray[np.float64]:
    """Return the (2, 3) inverse of a (2, 3) affine map.

    Raises:
        InputError: the map cannot be inverted.
    """
    (a, b, tx), (c, d, ty) = np.asarray(matrix, dtype=np.float64).tolist()
    determinant = a * d - b * c
    fits = determinant != 0 and all(map(math.isfinite, (determinant, tx, ty)))
    check(fits, "matrix", matrix, "an invertible (2, 3) affine map of finite numbers")
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    return np.array([[a, b, -(a * tx + b * ty)], [c, d, -(c * tx + d * ty)]])


def transform_points(points: FloatArray, matrix: FloatArray) -> FloatArray:
    """Apply a (2, 3) affine map to points (..., 2); the result has the dtype of `points`."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(points.dtype)


def warp_crop(
    image: npt.NDArray[np.uint8],
    matrix: FloatArray,
    crop_size: tuple[int, int],
    resample: Resample = DEFAULT_RESAMPLE,
) -> npt.NDArray[np.uint8]:
    """Sample a crop; outside of the image it is black.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), image pixels to crop pixels.
        crop_size: (height, width).
        resample: "linear" samples the image bilinearly at the centre of each of the crop's pixels, and so leaves out most of
            an image that has many more. "area" takes the mean over the square that the pixel covers, as a camera
            far away would; where the crop is not reduced it is the same as "linear". Both put what lies at a place in the
            image at the same place in the crop.

    Returns:
        (height, width, 3) uint8.

    Raises:
        InputError: OpenCV 4 cannot warp so many pixels, or an unknown way to sample.

    Example:
        >>> import numpy as np
        >>> from cdkd_ext.data import warp_crop
        >>> stripes = np.zeros((64, 64, 3), np.uint8)
        >>> stripes[:, ::2] = 200
        >>> quarter = np.array([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]])
        >>> {way: int(warp_crop(stripes, quarter, (16, 16), way)[8, 8, 0]) for way in ("linear", "area")}
        {'linear': 200, 'area': 100}
    """
    check_option("resample", resample, RESAMPLINGS)
    reduction = _reduction(matrix) if resample == "area" else 1.0
    if reduction <= 1 + _SAME:
        return _sampled(image, matrix, crop_size)
    if matrix[0][1] == 0 == matrix[1][0]:
        return _means(image, matrix, crop_size)
    if reduction >= 2 * _FEWEST_SAMPLES:
        factor = min(int(reduction / _FEWEST_SAMPLES), max(image.shape[:2]))
        image, matrix = _averaged(image, matrix, crop_size, factor)
        reduction /= factor
    # of a crop that shows next to nothing of its image, no more samples are of use
    samples = min(max(math.ceil(reduction - _SAME), _COARSEST), 2 * _FEWEST_SAMPLES)
    finer = samples * np.asarray(matrix, dtype=np.float64)
    finer[:, 2] += (samples - 1) / 2
    height, width = crop_size
    sampled = _sampled(image, finer, (height * samples, width * samples))
    # means of whole blocks, whose middles are the pixels' centres
    return cv2.resize(sampled, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def crops_of_boxes(
    image: npt.NDArray[np.uint8],
    boxes: FloatArray,
    crop_size: tuple[int, int],
    padding: float = 1.25,
    resample: Resample = DEFAULT_RESAMPLE,
    *,
    unbiased: bool = False,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Crop all people of an image at once: what `region_from_box`, `crop_matrix` and `warp_crop` give for each, to the bit.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4), (x, y, width, height) in image pixels, finite, width and height positive; N at least 1.
        crop_size: (height, width).
        padding: see `region_from_box`.
        resample: see `warp_crop`.
        unbiased: see `crop_matrix`.

    Returns:
        The crops (N, height, width, 3) uint8, and the (N, 2, 3) maps from their pixels to the image's.

    Raises:
        InputError: a box is too small or too large for float64, OpenCV 4 cannot warp so many pixels, or an unknown way to
            sample.

    Example:
        >>> import numpy as np
        >>> from cdkd_ext.data import crops_of_boxes
        >>> crops, to_image = crops_of_boxes(np.zeros((480, 640, 3), np.uint8), np.array([[10, 20, 64, 128]]), (32, 32))
        >>> crops.shape, to_image.shape
        ((1, 32, 32, 3), (1, 2, 3))
    """
    check_option("resample", resample, RESAMPLINGS)
    height, width = crop_size
    aspect = width / height
    corners, sizes = boxes[:, :2], boxes[:, 2:]
    centers = corners + sizes / 2
    with np.errstate(all="ignore"):
        high = np.maximum(sizes[:, 1], sizes[:, 0] / aspect) * padding
        wide = np.maximum(sizes[:, 0], sizes[:, 1] * aspect) * padding
        if unbiased:
            scales = np.stack([(width - 1) / wide, (height - 1) / high], 1)
            middle = np.array([(width - 1) / 2, (height - 1) / 2])
        else:
            scales = np.repeat((width / wide)[:, None], 2, 1)
            middle = np.array([width / 2, height / 2])
        offsets = middle - scales * centers
        back = scales[:, ::-1] / scales.prod(1, keepdims=True)
        to_image = np.zeros((len(boxes), 2, 3))
        to_image[:, 0, 0], to_image[:, 1, 1] = back.T
        to_image[:, :, 2] = -(back * offsets)
    fits = np.isfinite(to_image).all((1, 2)) & (back > 0).all(1)
    if not fits.all():
        first = int(np.argmin(fits))
        fail(f"boxes[{first}]", boxes[first].tolist(), "a box of which a crop can be made in float64")
    crops = np.empty((len(boxes), height, width, 3), np.uint8)
    means = (back.max(1) > 1 + _SAME) & (resample == "area")
    if image.strides[1:] != (3, 1) and means.any():
        image = np.ascontiguousarray(image)
    for crop, (x, y), (from_x, from_y), mean in zip(
        crops, scales.tolist(), offsets.tolist(), means.tolist(), strict=True
    ):
        if mean:
            crop[:] = area_crop(image, x, from_x, width, y, from_y, height)
        else:
            crop[:] = _sampled(image, np.array([[x, 0.0, from_x], [0.0, y, from_y]]), crop_size)
    return crops, to_image


def _means(
    image: npt.NDArray[np.uint8], matrix: FloatArray, crop_size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """The means of what a crop's pixels cover, where it is not turned."""
    if image.strides[1:] != (3, 1):
        image = np.ascontiguousarray(image)
    (scale_x, _, x), (_, scale_y, y) = np.asarray(matrix, dtype=np.float64).tolist()
    height, width = crop_size
    return area_crop(image, scale_x, x, width, scale_y, y, height)


def _reduction(matrix: FloatArray) -> float:
    """How many image pixels the longer side of a crop's pixel covers."""
    (a, b, _), (c, d, _) = invert_affine(matrix).tolist()
    return max(math.hypot(a, c), math.hypot(b, d))


def _averaged(
    image: npt.NDArray[np.uint8], matrix: FloatArray, crop_size: tuple[int, int], factor: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """The part of an image that a crop shows, reduced to means of `factor` pixels each way, and its map to the crop."""
    # a pixel of the crop more on each side: what the first one covers begins half a pixel before its centre
    wider = np.array(matrix, dtype=np.float64)
    wider[:, 2] += 1
    part, moved = cut_for_crop(image, wider, (crop_size[0] + 2, crop_size[1] + 2))
    moved[:, 2] -= 1
    moved[:, 2] += moved[:, :2].sum(1) * ((factor - 1) / 2)
    moved[:, :2] *= factor
    if not part.size:
        return part, moved
    height, width = part.shape[:2]
    # black, as all is outside of the image
    whole = cv2.copyMakeBorder(part, 0, -height % factor, 0, -width % factor, cv2.BORDER_CONSTANT)
    size = (whole.shape[1] // factor, whole.shape[0] // factor)
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), moved


def _sampled(
    image: npt.NDArray[np.uint8], matrix: FloatArray, crop_size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """A crop by one bilinear sample per pixel."""
    height, width = crop_size
    if max(image.shape[:2]) > _LARGEST_SIDE:
        # all others are warped whole: OpenCV 5 rounds coordinates in float32, so a cut can change a value by one
        image, matrix = cut_for_crop(image, matrix, crop_size)
    if not image.size:
        return np.zeros((height, width, 3), np.uint8)
    try:
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    except cv2.error:
        check(
            max(image.shape[:2]) <= _LARGEST_SIDE,
            "crop",
            f"one of {image.shape[1]}x{image.shape[0]} pixels",
            _FEWER,
        )
        raise
    return crop.astype(np.uint8, copy=False)


def cut_for_crop(
    image: npt.NDArray[np.uint8], matrix: FloatArray, crop_size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Cut the part out of an image that a crop shows, with the pixels around it that are sampled too.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), image pixels to crop pixels.
        crop_size: (height, width).

    Returns:
        A view of the part, empty if the crop shows none of the image, and the (2, 3) map from its pixels to those of
        the crop.
    """
    height, width = crop_size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
    shown = transform_points(corners, invert_affine(matrix))
    size = (image.shape[1], image.shape[0])
    left, top = np.clip(np.floor(shown.min(0)) - _AROUND, 0, size).astype(int)
    right, bottom = np.clip(np.ceil(shown.max(0)) + _AROUND, 0, size).astype(int)
    moved = np.array(matrix, dtype=np.float64)
    moved[:, 2] += moved[:, :2] @ (left, top)
    return image[top:bottom, left:right], moved
