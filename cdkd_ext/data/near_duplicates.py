"""Images that look almost like an earlier one, told by a perceptual hash."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check
from cdkd_ext.images import Image

_SIDE = 16
BITS = _SIDE * _SIDE


def difference_hash(image: Image) -> npt.NDArray[np.uint8]:
    """Return the difference hash of an image: on a grid of 16x16, whether it grows brighter to the right.

    Changes of brightness, contrast, size and compression leave most of the 256 bits as they are.

    Args:
        image: RGB uint8 (H, W, 3).

    Returns:
        (32,) uint8, the bits.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1])


class NearDuplicates:
    """Keeps the hashes of images and tells whether another one is close to any of them.

    Args:
        distance: the most bits of 256 in which the hashes of near-duplicates differ; below 0 there are none.

    Example:
        ```python
        known = NearDuplicates(distance=4)
        kept = [image for image in images if known.add(difference_hash(image))]
        ```
    """

    def __init__(self, distance: int) -> None:
        check(distance <= BITS, "distance", distance, f"at most {BITS} bits")
        self.distance = distance
        self._hashes = np.empty((64, BITS // 8), np.uint8)
        self._count = 0

    def add(self, bits: npt.NDArray[np.uint8]) -> bool:
        """Keep a hash of `difference_hash` unless it is close to a kept one; return whether it was kept."""
        if self.distance >= 0 and self._count and self._nearest(bits) <= self.distance:
            return False
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[self._count] = bits
        self._count += 1
        return True

    def _nearest(self, bits: npt.NDArray[np.uint8]) -> int:
        """In how many bits the closest kept hash differs."""
        kept = self._hashes[: self._count]
        distances, _ = cv2.batchDistance(bits[None], kept, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1)
        return int(distances[0, 0])
