"""Crops of people far away: fewer pixels, enlarged to what a network takes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from cdkd_ext.data.crops import FloatArray, invert_affine, warp_crop
from cdkd_ext.errors import check, fail
from cdkd_ext.images import Image

FULL = "full"
SMALLEST = 8  # pixels of a crop's height that show anything of a pose
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


@dataclass(frozen=True)
class Resolutions:
    """Which resolutions a network learns.

    Args:
        lowest: height of the smallest crop in pixels; None is full resolution alone.
        highest: height of the largest reduced crop.
        full_share: share of the crops at full resolution, so that nothing is unlearnt.

    Example:
        >>> from cdkd_ext.adaptation import Resolutions
        >>> Resolutions.parse("24-96", full_share=0.2)
        Resolutions(lowest=24, highest=96, full_share=0.2)
    """

    lowest: int | None
    highest: int | None
    full_share: float

    @classmethod
    def parse(cls, size: str | int, full_share: float = 0.1) -> Resolutions:
        """Read "32", a range such as "24-96", or "full".

        Raises:
            InputError: it is none of these, too small, or the share is not in [0, 1).
        """
        check(0 <= full_share < 1, "full_share", full_share, "a number in [0, 1)")
        text = str(size).strip()
        if text == FULL:
            return cls(None, None, full_share)
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if found is None:
            fail("size", repr(size), "pixels such as 32, a range such as 24-96, or full")
        lowest = int(found[1])
        highest = int(found[2] or lowest)
        check(SMALLEST <= lowest <= highest, "size", text, f"at least {SMALLEST} pixels, the smaller first")
        return cls(lowest, highest, full_share)

    def check_below(self, height: int) -> None:
        """Fail unless all resolutions are lower than that of a network's input of a height."""
        if self.highest is not None:
            check(self.highest < height, "size", self.highest, f"less than the network's own {height} pixels")

    def draw(self, rng: np.random.Generator) -> int | None:
        """The height of one crop, evenly in octaves; None is full resolution."""
        share, place = rng.random(2)
        if self.lowest is None or self.highest is None or share < self.full_share:
            return None
        low, high = math.log(self.lowest), math.log(self.highest + 1)
        return min(int(math.exp(low + (high - low) * place) + 1e-9), self.highest)

    def watched(self) -> list[int | None]:
        """The few resolutions that tell how far a training has come."""
        if self.lowest is None or self.highest is None:
            return [None]
        middle = round(math.sqrt(self.lowest * self.highest))
        return list(dict.fromkeys([self.lowest, middle, self.highest]))


def shown(height: int | None) -> str:
    """A resolution in words."""
    return FULL if height is None else str(height)
