"""What is predicted for the people of an image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class _Joints(NamedTuple):
    keypoints: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


class Poses(_Joints):
    """Predicted poses; unpacked, they are `keypoints` and `scores`.

    Attributes:
        keypoints: float32 (N, J, 2), pixels of the image.
        scores: float32 (N, J): probabilities from SimCC, heights of the maxima from heatmaps.
        box_scores: float32 (N,): how sure the detector was of each person, 1 where the boxes do not say.
    """

    box_scores: npt.NDArray[np.float32]

    def __new__(
        cls,
        keypoints: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        box_scores: npt.NDArray[np.float32] | None = None,
    ) -> Poses:
        """Put the arrays together."""
        poses = super().__new__(cls, keypoints, scores)
        poses.box_scores = np.ones(len(keypoints), np.float32) if box_scores is None else box_scores
        return poses

    def _replace(self, **changes: Any) -> Poses:
        """A copy with other arrays; `box_scores` is one of them."""
        box_scores = changes.pop("box_scores", self.box_scores)
        return Poses(*super()._replace(**changes), box_scores)
