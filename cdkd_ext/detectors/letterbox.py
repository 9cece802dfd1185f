"""Images fitted into a detector's input without changing their aspect ratio."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.images import Image


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in a detector's input, and the way back.

    Coordinates are continuous: a pixel covers [i, i + 1), so an image of w pixels reaches from 0 to w.

    Attributes:
        size: (height, width) of the input.
        image_size: (height, width) of the image.
        inner: (height, width) of the image in the input.
        offset: (y, x) of its top left corner there.
    """

    size: tuple[int, int]
    image_size: tuple[int, int]
    inner: tuple[int, int]
    offset: tuple[int, int]

    @classmethod
    def fit(cls, image_size: tuple[int, int], size: tuple[int, int], *, centered: bool = True) -> Letterbox:
        """Fit an image into an input, as large as possible.

        Args:
            image_size: (height, width) of the image.
            size: (height, width) of the input.
            centered: leave the same border on both sides; without it, all of it at the right and at the bottom.
        """
        scale = min(size[0] / image_size[0], size[1] / image_size[1])
        inner = max(round(image_size[0] * scale), 1), max(round(image_size[1] * scale), 1)
        spare = size[0] - inner[0], size[1] - inner[1]
        return cls(size, image_size, inner, (spare[0] // 2, spare[1] // 2) if centered else (0, 0))

    def draw(self, image: Image, border: int) -> Image:
        """Return the input (H, W, 3) uint8: the image, resized bilinearly, in a border of one grey value."""
        canvas = np.full((*self.size, 3), border, np.uint8)
        (height, width), (top, left) = self.inner, self.offset
        canvas[top : top + height, left : left + width] = cv2.resize(
            image, (width, height), interpolation=cv2.INTER_LINEAR
        )
        return canvas

    def to_image(self, corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn (N, 4) corners x1, y1, x2, y2 in the input into corners in the image, cut to it."""
        (top, left), (height, width) = self.offset, self.image_size
        scale = np.array([width / self.inner[1], height / self.inner[0]] * 2, np.float32)
        moved = (corners - np.array([left, top] * 2, np.float32)) * scale
        return np.clip(moved, 0, np.array([width, height] * 2, np.float32))
