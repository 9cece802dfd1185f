"""Overlapping pieces of an image, for people who would be a few pixels high in a detector's input."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_OVERLAP = 0.25
# of a piece's side: detectors are not exact to a pixel
_NEAR = 0.02


class Piece(NamedTuple):
    """A part of an image in whole pixels."""

    top: int
    left: int
    height: int
    width: int

    def whole(self, corners: npt.NDArray[np.float32], image_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which boxes do not end where the piece was cut out: others are parts of people whom a neighbour shows whole.

        Args:
            corners: (N, 4) of x1, y1, x2, y2 in pixels of the piece.
            image_size: (height, width) of the image.
        """
        near = _NEAR * max(self.height, self.width)
        x1, y1, x2, y2 = corners.T
        cut = np.zeros(len(corners), bool)
        if self.left > 0:
            cut |= x1 < near
        if self.top > 0:
            cut |= y1 < near
        if self.left + self.width < image_size[1]:
            cut |= x2 > self.width - near
        if self.top + self.height < image_size[0]:
            cut |= y2 > self.height - near
        return ~cut


def pieces(image_size: tuple[int, int], count: int) -> list[Piece]:
    """Cut an image into squares that overlap by a quarter at least, so many along its longer side.

    Args:
        image_size: (height, width).
        count: of squares along the longer side; as many as it takes along the other. 1 gives the whole image.
    """
    if count == 1:
        return [Piece(0, 0, *image_size)]
    side = math.ceil(max(image_size) / (count - (count - 1) * _OVERLAP))
    tops, lefts = (_starts(length, side) for length in image_size)
    height, width = (min(side, length) for length in image_size)
    return [Piece(top, left, height, width) for top in tops for left in lefts]


def _starts(length: int, side: int) -> list[int]:
    if side >= length:
        return [0]
    step = side * (1 - _OVERLAP)
    count = math.ceil((length - side) / step - 1e-9) + 1
    return [round(place) for place in np.linspace(0, length - side, count)]
