"""Agreement with a teacher: accuracy where there are no labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check

SURE = 0.3  # confidence from which on a teacher's joint is worth agreeing with
NEAR = 0.05  # of the crop's longer side: about half a head


def agreement(
    keypoints: npt.NDArray[np.floating],
    expected: npt.NDArray[np.floating],
    confidence: npt.NDArray[np.floating],
    sides: npt.ArrayLike,
) -> float:
    """Return the share, in percent, of the joints that a teacher is sure of that lie where it says.

    Near enough is a twentieth of the crop's longer side, sure a confidence of 0.3 and more.

    Args:
        keypoints: (N, J, 2), in pixels.
        expected: (N, J, 2), the teacher's, in the same pixels.
        confidence: (N, J), the teacher's.
        sides: () or (N,), the crops' longer sides in the same pixels.

    Returns:
        The percentage; nan where the teacher is sure of nothing.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> import numpy as np
        >>> from cdkd_ext.evaluation import agreement
        >>> expected = np.zeros((1, 2, 2))
        >>> agreement(expected + [[[0, 5], [6, 0]]], expected, np.ones((1, 2)), 100)
        50.0
    """
    check(keypoints.shape == expected.shape, "keypoints", keypoints.shape, f"shape {expected.shape}")
    check(
        confidence.shape == expected.shape[:2], "confidence", confidence.shape, f"shape {expected.shape[:2]}"
    )
    sure = confidence >= SURE
    if not sure.any():
        return float("nan")
    error = np.linalg.norm(keypoints - expected, axis=-1)
    near = error <= NEAR * np.broadcast_to(np.asarray(sides)[..., None], error.shape)
    return float(100 * near[sure].mean())
