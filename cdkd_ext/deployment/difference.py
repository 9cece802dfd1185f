"""How far an exported file is from the network that it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check
from cdkd_ext.inference import CropNetwork

_PIXELS = 0.01
_MOST_MOVED = 0.01
_MOST_SCORES = 1e-3


@dataclass(frozen=True)
class Difference:
    """How far two networks are from each other on some crops.

    Attributes:
        crops: how many.
        source: where they come from, in words.
        pixels: the largest distance of a keypoint in pixels of the crop.
        moved: part of the keypoints that are more than 0.01 pixels away, without those that rounding alone can move as far.
        scores: the largest difference of a score.
    """

    crops: int
    source: str
    pixels: float
    moved: float
    scores: float

    @classmethod
    def between(
        cls,
        before: CropNetwork,
        after: CropNetwork,
        crops: npt.NDArray[np.uint8],
        source: str,
        *,
        rounded: Iterable[CropNetwork] = (),
    ) -> Difference:
        """Ask two networks about RGB crops (N, h, w, 3) uint8.

        Args:
            before: the one.
            after: the other.
            crops: what they are asked about.
            source: where the crops come from, in words.
            rounded: `before` up to a little more than rounding. Where one of them finds another place, rounding decides: two
                maxima are nearly equal, or a map is so flat that the way to its maximum is anything. They are asked only where
                there is a distance to explain.
        """
        unmoved = np.tile(np.eye(2, 3, dtype=np.float32), (len(crops), 1, 1))
        (points, scores), (other_points, other_scores) = (
            network(crops, unmoved) for network in (before, after)
        )
        distance = np.linalg.norm(points - other_points, axis=-1)
        # what is no number is not near
        far = ~(distance <= _PIXELS)
        for network in rounded if far.any() else ():
            far &= ~(np.linalg.norm(points - network(crops, unmoved)[0], axis=-1) > _PIXELS)
        return cls(
            len(crops),
            source,
            float(distance.max()),
            float(far.mean()),
            float(np.abs(scores - other_scores).max()),
        )

    def refuse_large(self, path: Path) -> None:
        """Check that the two are one function up to rounding.

        Raises:
            InputError: they are not.
        """
        same = self.scores <= _MOST_SCORES and self.moved <= _MOST_MOVED
        check(same, str(path), str(self), "the keypoints of PyTorch")

    def refuse_nan(self, path: Path) -> None:
        """Check that there are numbers to compare: float16 ends at 65,504.

        Raises:
            InputError: there are not.
        """
        check(
            not math.isnan(self.pixels + self.scores), str(path), "some that are NaN", "keypoints and scores"
        )

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"against PyTorch on {self.crops} crops of {self.source}: keypoints differ by at most {self.pixels:.3g} "
            f"pixels ({100 * self.moved:.2f} % by more than {_PIXELS}, without maxima that rounding decides), "
            f"scores by at most {self.scores:.2g}"
        )
