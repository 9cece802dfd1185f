"""Who is who from frame to frame, and steadier keypoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
_SMALLEST_OVERLAP = 0.3
_LONGEST_ABSENCE = 1.0  # seconds


def box_overlaps(boxes: npt.ArrayLike, others: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4), each (x, y, width, height): (N, M), 0 to 1."""
    first = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    second = np.asarray(others, np.float64).reshape(1, -1, 4)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    return np.asarray(common / (first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - common))


class OneEuroFilter:
    """Smooths values that come one after the other: more where they rest, less where they move (Casiez et al., 2012).

    Args:
        min_cutoff: hertz, of values at rest; lower is smoother.
        beta: by how much the cutoff rises with the speed, in hertz per unit and second.
        speed_cutoff: hertz, of the speed's own smoothing.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 10.0, speed_cutoff: float = 1.0) -> None:
        self._min_cutoff, self._beta, self._speed_cutoff = min_cutoff, beta, speed_cutoff
        self._last: Array | None = None
        self._speed: Array | None = None
        self._seconds = 0.0

    def __call__(self, values: Array, seconds: float, unit: float = 1.0) -> Array:
        """Return the smoothed values.

        Args:
            values: (…) of any shape, the same at each call; one that is not finite is returned as it is and forgotten.
            seconds: when they were; not before those of the last call.
            unit: what speeds are measured in, such as a person's size in pixels.
        """
        step = seconds - self._seconds
        self._seconds = seconds
        if self._last is None or self._speed is None or step <= 0:
            self._last, self._speed = values.copy(), np.zeros_like(values)
            return values
        known = np.isfinite(values)
        last = np.where(np.isfinite(self._last), self._last, values)
        moved = np.where(known, values - last, 0)
        speed = self._speed + _share(self._speed_cutoff, step) * (moved / (step * unit) - self._speed)
        self._speed = np.where(known, speed, self._speed)
        cutoff = self._min_cutoff + self._beta * np.abs(self._speed)
        self._last = np.asarray(last + _share(cutoff, step) * moved, values.dtype)
        return np.where(known, self._last, values)


def _share(cutoff: npt.ArrayLike, step: float) -> npt.NDArray[np.float64]:
    """How much of a new value is taken by a low pass of a cutoff in hertz, a step in seconds after the last one."""
    turned = 2 * math.pi * step * np.asarray(cutoff, np.float64)
    return np.asarray(turned / (turned + 1))


@dataclass
class _Track:
    identity: int
    box: npt.NDArray[np.float64]
    seconds: float
    filter: OneEuroFilter = field(default_factory=OneEuroFilter)


class Tracker:
    """Gives people in consecutive frames identities: a box belongs to whose last box it overlaps most.

    Args:
        smooth: also smooth the keypoints of each person.

    Example:
        >>> import numpy as np
        >>> tracker = Tracker()
        >>> tracker(np.array([[0, 0, 10, 20], [50, 0, 10, 20]]), np.zeros((2, 17, 2), np.float32), 0.0)[0].tolist()
        [0, 1]
        >>> tracker(np.array([[51, 1, 10, 20], [1, 0, 10, 20]]), np.zeros((2, 17, 2), np.float32), 0.04)[0].tolist()
        [1, 0]
    """

    def __init__(self, *, smooth: bool = False) -> None:
        self._smooth = smooth
        self._seconds = 0.0
        self._tracks: list[_Track] = []
        self._next = 0

    def __call__(
        self, boxes: npt.ArrayLike, keypoints: Array, seconds: float
    ) -> tuple[npt.NDArray[np.int64], Array]:
        """Take the people of the next frame.

        Args:
            boxes: (N, 4), (x, y, width, height) in pixels.
            keypoints: float32 (N, J, 2).
            seconds: when the frame was.

        Returns:
            Identities (N,), and the keypoints, smoothed if they are to be.
        """
        places = np.asarray(boxes, np.float64).reshape(-1, 4)
        # who was in the last frame has not been absent, however long ago that was
        earliest = min(seconds - _LONGEST_ABSENCE, self._seconds)
        self._tracks = [track for track in self._tracks if track.seconds >= earliest]
        self._seconds = seconds
        found = self._matched(places)
        keypoints = keypoints.copy()
        identities = np.zeros(len(places), np.int64)
        for person, box in enumerate(places):
            track = found.get(person)
            if track is None:
                track = _Track(self._next, box, seconds)
                self._next += 1
                self._tracks.append(track)
            track.box, track.seconds = box, seconds
            identities[person] = track.identity
            if self._smooth:
                size = math.sqrt(box[2] * box[3])
                keypoints[person] = track.filter(keypoints[person], seconds, size)
        return identities, keypoints

    def _matched(self, boxes: npt.NDArray[np.float64]) -> dict[int, _Track]:
        """The tracks of people, the largest overlap first."""
        if not self._tracks or not len(boxes):
            return {}
        overlaps = box_overlaps(boxes, np.stack([track.box for track in self._tracks]))
        found: dict[int, _Track] = {}
        taken: set[int] = set()
        for place in np.argsort(-overlaps, axis=None, kind="stable"):
            person, other = divmod(int(place), len(self._tracks))
            if overlaps[person, other] < _SMALLEST_OVERLAP:
                break
            if person not in found and other not in taken:
                found[person] = self._tracks[other]
                taken.add(other)
        return found
