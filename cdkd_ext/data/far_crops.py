"""Crops of people far away: fewer pixels, enlarged to what a network takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from cdkd_ext.data.camera_faults import add_camera_faults
from cdkd_ext.data.crops import FloatArray, invert_affine, warp_crop
from cdkd_ext.images import Image
from cdkd_ext.resampling import Resample

_MARGIN = 1


def crop_from_afar(
    image: Image,
    matrix: FloatArray,
    size: tuple[int, int],
    height: int,
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    faults: Callable[[Image], Image] | None = None,
) -> Image:
    """Return a crop as a camera gives it of a person who is so few pixels tall, enlarged to a network's input.

    Each of the few pixels is the mean over its area (`warp_crop`), enlarging is bilinear, and what lies at a place of the
    full crop lies there in this one, too: a joint's coordinates stay the same.

    Args:
        image: RGB uint8 (H, W, 3).
        matrix: (2, 3), from image pixels to pixels of the crop at full resolution.
        size: (height, width) of the crop at full resolution, and of the result.
        height: pixels of the reduced crop, whose width follows; fewer than the crop's.
        shift: (x, y) of the grid of few pixels against the crop's edges, in few pixels: a camera knows nothing of crops.
        faults: what else the camera does to the few pixels.
    """
    scale = height / size[0]
    width = math.ceil(size[1] * scale)
    # edges on edges; a pixel more on each side, and those that the shift uncovers
    offset = np.array(shift) + (scale - 1) / 2 + _MARGIN
    few = np.column_stack([np.eye(2) * scale, offset])
    small_size = (height + 2 * _MARGIN + 1, width + 2 * _MARGIN + 1)
    combined = np.column_stack([scale * matrix[:, :2], scale * matrix[:, 2] + offset])
    small = warp_crop(image, combined, small_size, "area")
    if faults is not None:
        small = faults(small)
    back = invert_affine(few)
    large = cv2.warpAffine(
        small, back, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(large, np.uint8)


def crop_as_seen(
    image: Image,
    matrix: FloatArray,
    size: tuple[int, int],
    height: int | None,
    resample: Resample,
    rng: np.random.Generator,
    strength: float,
    *,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Image:
    """Return a crop at full resolution (`height` None) or from afar, with camera faults in the pixels that the camera has.

    At full resolution it is read as `warp_crop` does it, else as `crop_from_afar`; the faults are those of `add_camera_faults`.
    """

    def faults(crop: Image) -> Image:
        return add_camera_faults(crop, rng, strength)

    if height is None:
        return faults(warp_crop(image, matrix, size, resample))
    return crop_from_afar(image, matrix, size, height, shift=shift, faults=faults)
