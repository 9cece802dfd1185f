"""Overlapping pieces of an image, for people who would be a few pixels high in a detector's input."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def merged(
    found: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]], overlap: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Put together what several pieces show: of two boxes of one person the one with the higher score.

    Two pieces show a person a little otherwise, so that what counts between them is the part of the smaller box that lies in
    the other one.

    Args:
        found: of each piece boxes (N, 4) of x, y, width, height in the image, and scores (N,).
        overlap: the largest part that boxes of two people share.

    Returns:
        Boxes and scores, highest first.
    """
    boxes, scores = (np.concatenate(values) for values in zip(*found, strict=True))
    origin = np.repeat(np.arange(len(found)), [len(values) for _, values in found])
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for index in order.tolist():
        others = np.array([other for other in kept if origin[other] != origin[index]], int)
        if not len(others) or _shared(boxes[index], boxes[others]).max() <= overlap:
            kept.append(index)
    return boxes[kept], scores[kept]


def _shared(box: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of each pair, how much of the smaller box lies in the other."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    return np.asarray(common / np.minimum(box[2:].prod(), others[:, 2:].prod(1)), np.float32)


def _starts(length: int, side: int) -> list[int]:
    if side >= length:
        return [0]
    step = side * (1 - _OVERLAP)
    count = math.ceil((length - side) / step - 1e-9) + 1
    return [round(place) for place in np.linspace(0, length - side, count)]
