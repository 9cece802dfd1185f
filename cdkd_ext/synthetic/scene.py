"""What surrounds a person: backgrounds, occluders, and the flaws of a camera.

Images are RGB uint8 (H, W, 3); every image is square.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from cdkd_ext.synthetic.clothes import random_surroundings_colour

Array: TypeAlias = np.ndarray
Colour: TypeAlias = tuple[float, ...]

_SHIFT = 4  # OpenCV draws with coordinates in 1/16 pixel
OCCLUDED_SHARE = 0.25
BLURRED_SHARE = 0.55
MOTION_BLUR_SHARE = 0.10
GREY_SHARE = 0.03


def random_background(rng: np.random.Generator, size: int) -> Array:
    """A cluttered place: a wall or sky over a floor, structures, shapes, lines and limb-like distractors."""
    image = _gradient(rng, size)
    if rng.random() < 0.7:
        horizon = int(size * rng.uniform(0.45, 0.95))
        image[horizon:] = _gradient(rng, size)[horizon:]
    for _ in range(rng.integers(0, 5)):
        _add_structure(rng, image)
    for _ in range(rng.integers(2, 12)):
        _add_clutter(rng, image)
    for _ in range(rng.integers(0, 4)):
        _add_distractor_limb(rng, image)
    if rng.random() < 0.5:  # out of focus behind the person
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.2) * size / 128)
    return _textured(rng, image)


def add_shadow(rng: np.random.Generator, image: Array, foot: tuple[float, float], width: float) -> Array:
    """Darken an ellipse of the floor around `foot` (x, y)."""
    shade: Array = np.full(image.shape[:2], 255, np.uint8)
    axes = (width * rng.uniform(0.5, 0.9), width * rng.uniform(0.08, 0.2))
    tilt, darkness = rng.normal(0, 6), rng.uniform(110, 200)
    cv2.ellipse(shade, (foot, (2 * axes[0], 2 * axes[1]), float(tilt)), float(darkness), -1)
    shade = cv2.GaussianBlur(shade, (0, 0), 1.5 * image.shape[0] / 128)
    return cv2.multiply(image, cv2.merge([shade] * 3), scale=1 / 255)


def add_occluders(rng: np.random.Generator, layer: Array, box: Array, label: int) -> None:
    """Draw up to two things in front of the person into `layer` (h, w, 4), its last channel set to `label`.

    `box` is the person's (x, y, width, height) in the layer's pixels.
    """
    if rng.random() >= OCCLUDED_SHARE:
        return
    for _ in range(rng.integers(1, 3)):
        centre = box[:2] + rng.uniform(0.05, 0.95, 2) * box[2:]
        reach = float(box[2:].max())
        colour = (*random_surroundings_colour(rng), label)
        kind = rng.choice(["pole", "board", "ball", "wall"])
        if kind == "pole":
            angle = rng.normal(np.pi / 2, 0.35) if rng.random() < 0.7 else rng.uniform(0, np.pi)
            _add_block(layer, centre, (2 * reach, reach * rng.uniform(0.02, 0.06)), angle, colour)
        elif kind == "board":
            extent = reach * rng.uniform(0.08, 0.24, 2)
            _add_block(layer, centre, tuple(extent), rng.normal(0, 0.25), colour)
            inner = (*np.multiply(colour[:3], 0.75), label)
            _add_block(layer, centre, tuple(extent * 0.7), rng.normal(0, 0.05), inner)
        elif kind == "ball":
            axes = tuple(float(axis) for axis in reach * rng.uniform(0.07, 0.2, 2))
            turn = float(rng.uniform(0, 180))
            for shrink in (1.0, 0.8, 0.55, 0.3):  # a highlight towards the upper left
                place = tuple((centre - 0.25 * (1 - shrink) * min(axes)).tolist())
                tone = (*np.multiply(colour[:3], 0.75 + 0.35 * (1 - shrink)), label)
                cv2.ellipse(layer, (place, tuple(shrink * axis for axis in axes), turn), tone, -1)
        else:  # a table, a counter or a fence hides the lowest part
            top = box[1] + box[3] * rng.uniform(0.78, 1.0)
            centre[1] = top + reach
            _add_block(layer, centre, (3 * reach, 2 * reach), rng.normal(0, 0.03), colour)


def photograph(rng: np.random.Generator, image: Array) -> Array:
    """Uneven light, blur, colour cast, contrast, exposure and sensor noise."""
    size = image.shape[0]
    corners = rng.uniform(0.78, 1.14, (2, 2)).astype(np.float32)
    light = cv2.resize(corners, (size, size), interpolation=cv2.INTER_CUBIC)
    photo: Array = image.astype(np.float32) * light[..., None]
    if rng.random() < BLURRED_SHARE:
        photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.35, 1.0) * size / 128)
    if rng.random() < MOTION_BLUR_SHARE:
        photo = cv2.filter2D(photo, -1, _motion_kernel(rng, size))
    contrast, exposure = rng.uniform(0.7, 1.25), rng.normal(4, 12)
    cast = rng.normal(1.0, 0.05, 3).astype(np.float32)
    photo = (photo - 127.5) * (contrast * cast) + np.float32(127.5 + exposure)
    if rng.random() < GREY_SHARE:
        photo = np.repeat(photo.mean(2, keepdims=True), 3, axis=2)
    grain = rng.standard_normal(photo.shape, np.float32)
    if rng.random() < 0.4:  # coarse grain, as after compression
        grain = 1.6 * cv2.GaussianBlur(grain, (0, 0), 0.7)
    photo += rng.uniform(1.5, 9.0) * grain
    return np.clip(photo + 0.5, 0, 255).astype(np.uint8)


def _gradient(rng: np.random.Generator, size: int) -> Array:
    base = random_surroundings_colour(rng)
    corners = np.clip(base + rng.normal(0, 22, (2, 2, 3)), 0, 255).astype(np.float32)
    return cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _textured(rng: np.random.Generator, image: Array) -> Array:
    """Add noise of several scales: foliage, plaster, gravel."""
    size = image.shape[0]
    strength = rng.uniform(2, 20)
    noise = np.zeros((size, size, 3), np.float32)
    for cells in (5, 13, 34):
        patch = rng.standard_normal((cells, cells, 3), np.float32)
        patch = patch.mean(2, keepdims=True) + 0.15 * patch
        noise += cv2.resize(patch, (size, size), interpolation=cv2.INTER_CUBIC) * rng.uniform(0.2, 1.0)
    return np.clip(image + strength * noise, 0, 255).astype(np.uint8)


def _add_structure(rng: np.random.Generator, image: Array) -> None:
    """A window, a door, a shelf, a tree trunk: an upright block with a frame or bars."""
    size = image.shape[0]
    centre = rng.uniform(0, size, 2)
    extent = size * rng.uniform(0.08, 0.5, 2)
    colour, second = _mixed(rng, image), _mixed(rng, image)
    _add_block(image, centre, tuple(extent), rng.normal(0, 0.04), colour)
    bars = rng.integers(0, 5)
    for bar in range(bars):
        offset = ((bar + 0.5) / bars - 0.5) * extent[0]
        bar_centre = np.array([centre[0] + offset, centre[1]])
        _add_block(image, bar_centre, (extent[0] / (3 * bars), 0.9 * extent[1]), 0.0, second)


def _add_clutter(rng: np.random.Generator, image: Array) -> None:
    size = image.shape[0]
    centre = rng.uniform(-0.1, 1.1, 2) * size
    colour = _mixed(rng, image)
    kind = rng.integers(3)
    if kind == 0:
        corners = centre + rng.normal(0, size * rng.uniform(0.05, 0.15), (rng.integers(3, 6), 2))
        cv2.fillConvexPoly(image, cv2.convexHull(_fixed(corners)), colour, cv2.LINE_AA, _SHIFT)
    elif kind == 1:
        end = centre + rng.normal(0, 0.5 * size, 2)
        thickness = int(rng.integers(1, 1 + max(1, size // 32)))
        points = _fixed(np.stack([centre, end]))
        cv2.polylines(image, [points], False, colour, thickness, cv2.LINE_AA, _SHIFT)
    else:
        axes = tuple(float(axis) for axis in size * rng.uniform(0.03, 0.22, 2))
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(image, (tuple(centre.tolist()), axes, turn), colour, -1, cv2.LINE_AA)


def _add_distractor_limb(rng: np.random.Generator, image: Array) -> None:
    """Two joined rounded segments, shaded on one side, in a limb's proportions."""
    size = image.shape[0]
    steps = np.concatenate([rng.uniform(0, size, (1, 2)), rng.normal(0, 0.14 * size, (2, 2))])
    points = steps.cumsum(0)
    width = size * rng.uniform(0.03, 0.07)
    colour = np.array(_mixed(rng, image))
    for scale, tone in ((1.0, 0.75), (0.75, 0.9), (0.4, 1.0)):
        shaded = tuple((colour * tone).tolist())
        thickness = max(1, round(width * scale))
        cv2.polylines(image, [_fixed(points)], False, shaded, thickness, cv2.LINE_AA, _SHIFT)


def _mixed(rng: np.random.Generator, image: Array) -> Colour:
    """A colour between a random one and the image's own: clutter rarely shouts."""
    own = image[rng.integers(image.shape[0]), rng.integers(image.shape[1])]
    share = rng.uniform(0.2, 0.9)
    return tuple((share * random_surroundings_colour(rng) + (1 - share) * own).tolist())


def _add_block(image: Array, centre: Array, extent: tuple[float, ...], angle: float, colour: Colour) -> None:
    """Fill a rectangle of `extent` (length, thickness) turned by `angle` radians."""
    along = 0.5 * np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    points = centre + corners[:, :1] * extent[0] * along + corners[:, 1:] * extent[1] * across
    smooth = cv2.LINE_AA if image.shape[2] == 3 else cv2.LINE_8  # labels must not blend
    cv2.fillConvexPoly(image, _fixed(points), colour, smooth, _SHIFT)


def _motion_kernel(rng: np.random.Generator, size: int) -> Array:
    length = rng.uniform(2.0, 4.5) * size / 128
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    end = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    points = _fixed(np.stack([reach - end, reach + end]))
    cv2.polylines(kernel, [points], False, 1.0, 1, cv2.LINE_8, _SHIFT)
    return kernel / kernel.sum()


def _fixed(points: Array) -> Array:
    """Pixel coordinates as OpenCV's fixed-point integers."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32)
