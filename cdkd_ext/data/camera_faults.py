"""What cameras do to far-away people: blur, few pixels, wrong exposure, noise, and blocks of compression."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check
from cdkd_ext.images import decode_image, encode_image

Crop = npt.NDArray[np.uint8]

VERSION = 1  # part of the fingerprints of stored views; to be raised when a change here changes a pixel
_PROBABILITY = 0.5  # of each fault
# of each fault at strength 1
_BLUR = 1.0  # standard deviation in pixels
_REDUCTION = 1.0  # a crop of n pixels is made of n / 2
_EXPOSURE = 1.0  # stops, up or down
_GAMMA = 0.5  # powers of two, up or down
_NOISE = 16.0  # standard deviation in grey levels
_BEST_QUALITY, _WORST_QUALITY = 95, 30  # of JPEG


def check_strength(name: str, strength: float) -> None:
    """Check how strong camera faults are; `name` is what messages call it.

    Raises:
        InputError: the strength is outside of [0, 1].
    """
    check(0 <= strength <= 1, name, strength, "a number in [0, 1]")


def add_camera_faults(crop: Crop, rng: np.random.Generator, strength: float) -> Crop:
    """Return a crop as a worse camera would give it: the same people at the same places.

    In the order in which they arise: blur (Gaussian, up to 1 pixel), a native resolution of fewer pixels (down to half,
    enlarged bilinearly), exposure (up to a stop) and gamma, noise of the sensor (up to 16 grey levels), and JPEG (quality
    95 down to 30). Each is there in half of all crops, and as strong as a uniform draw between 0 and `strength` of
    the numbers here.

    Args:
        crop: (height, width, 3) uint8, RGB.
        rng: source of all randomness; what it draws does not depend on the strength.
        strength: in [0, 1]; 0 returns the crop.

    Raises:
        InputError: the strength is outside of [0, 1].

    Example:
        >>> import numpy as np
        >>> from cdkd_ext.data import add_camera_faults
        >>> crop = np.full((32, 32, 3), 128, np.uint8)
        >>> add_camera_faults(crop, np.random.default_rng(0), 0.5).shape
        (32, 32, 3)
    """
    check_strength("strength", strength)
    if strength == 0:
        return crop
    there = rng.random(5) < _PROBABILITY
    blur, reduction, exposure, noise, quality = np.where(there, strength * rng.random(5), 0.0)
    up_or_down = rng.uniform(-1, 1, 2)
    light = crop
    if blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), _BLUR * blur).astype(np.uint8, copy=False)
    if reduction > 0:
        light = _of_fewer_pixels(light, 1 + _REDUCTION * reduction)
    if exposure > 0:
        stops, power = exposure * up_or_down * (_EXPOSURE, _GAMMA)
        light = _exposed(light, 2.0**stops, 2.0**power)
    if noise > 0:
        grain = _NOISE * noise * rng.standard_normal(crop.shape, dtype=np.float32)
        light = (light + grain).round().clip(0, 255).astype(np.uint8)
    if quality > 0:
        kept = round(_BEST_QUALITY + (_WORST_QUALITY - _BEST_QUALITY) * quality)
        light = decode_image(encode_image(light, ".jpg", jpeg_quality=kept))
    return light


def _of_fewer_pixels(crop: Crop, reduction: float) -> Crop:
    """The crop reduced, and enlarged to its size; both keep the edges, and so every place."""
    height, width = crop.shape[:2]
    fewer = (max(1, round(width / reduction)), max(1, round(height / reduction)))
    reduced = cv2.resize(crop, fewer, interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _exposed(crop: Crop, gain: float, gamma: float) -> Crop:
    values = 255 * (np.arange(256) / 255) ** gamma * gain
    return values.round().clip(0, 255).astype(np.uint8)[crop]
