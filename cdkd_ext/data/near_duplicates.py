"""Images that look almost like an earlier one, told by a perceptual hash."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check
from cdkd_ext.images import Image

_SIDE = 16
BITS = _SIDE * _SIDE
# number of ones in every 16-bit word
_ONES = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1)
_WORDS = BITS // 16


def difference_hash(image: Image) -> npt.NDArray[np.uint16]:
    """Return the difference hash of an image: on a grid of 16x16, whether it grows brighter to the right.

    Changes of brightness, contrast, size and compression leave most of the 256 bits as they are.

    Args:
        image: RGB uint8 (H, W, 3).

    Returns:
        (16,) uint16, the bits.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint16)


class NearDuplicates:
    """Keeps the hashes of images and tells whether another one is close to any of them.

    Args:
        distance: the most bits of 256 in which the hashes of near-duplicates differ; below 0 there are none.

    Example:
        ```python
        known = NearDuplicates(distance=8)
        kept = [image for image in images if known.add(difference_hash(image))]
        ```
    """

    def __init__(self, distance: int) -> None:
        check(distance <= BITS, "distance", distance, f"at most {BITS} bits")
        self.distance = distance
        self._hashes = np.empty((64, _WORDS), np.uint16)
        self._count = 0

    def add(self, bits: npt.NDArray[np.uint16]) -> bool:
        """Keep a hash of `difference_hash` unless it is close to a kept one; return whether it was kept."""
        kept = self._hashes[: self._count]
        if self.distance >= 0 and self._count and _ONES[kept ^ bits].sum(1).min() <= self.distance:
            return False
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[self._count] = bits
        self._count += 1
        return True
