"""Which resolutions an adaptation learns."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from cdkd_ext.errors import check, fail
from cdkd_ext.resampling import SMALLEST_CROP

FULL = "full"


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
        check(
            SMALLEST_CROP <= lowest <= highest,
            "size",
            text,
            f"at least {SMALLEST_CROP} pixels, the smaller first",
        )
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
