"""How right predictions are: by threshold, by joint, by the size of the person, and of each person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.data import EvaluationSet
from cdkd_ext.evaluation import pckh
from cdkd_ext.reporting.collect import Predicted

Floats = npt.NDArray[np.floating[Any]]
_CURVE = np.linspace(0.0, 1.0, 41)
_SIZES = 5


@dataclass(frozen=True)
class Yardstick:
    """What distances are measured by.

    Attributes:
        metric: what the share of keypoints within the threshold is called.
        unit: of the thresholds, in words.
        threshold: the usual one, in units.
        lengths: (N,), the unit of each person in pixels; NaN where it is not known.
    """

    metric: str
    unit: str
    threshold: float
    lengths: Floats

    @classmethod
    def of(cls, truth: EvaluationSet) -> Yardstick:
        """The head's length where people are measured by PCKh, else the square root of their area."""
        if truth.metric == "pckh":
            lengths = np.array([person.head_size for person in truth.persons], np.float64)
            return cls("PCKh@0.5", "head lengths", 0.5, lengths)
        lengths = np.sqrt([person.area for person in truth.persons])
        return cls("PCK@0.1", "square roots of the person's area", 0.1, lengths)


class Accuracy:
    """Measures a network of a report.

    Args:
        truth: the people.
        yardstick: the unit of distances.
        predicted: what the network says.
    """

    def __init__(self, truth: EvaluationSet, yardstick: Yardstick, predicted: Predicted) -> None:
        self._truth, self._yardstick = truth, yardstick
        self._targets = np.stack([person.keypoints for person in truth.persons])
        # joints that a network does not know are none of its mistakes
        self._annotated = np.stack([person.annotated for person in truth.persons]) * predicted.known
        self._keypoints = predicted.keypoints

    def mean(self, threshold: float | None = None, chosen: npt.NDArray[np.bool_] | None = None) -> float:
        """Percent of the keypoints within a threshold, of the chosen people; NaN where there is nothing to measure."""
        return self._measured(threshold, chosen)[0]

    def per_joint(self) -> dict[str, float]:
        """Percent by kind of joint."""
        return self._measured(None, None)[1]

    def _measured(
        self, threshold: float | None, chosen: npt.NDArray[np.bool_] | None
    ) -> tuple[float, dict[str, float]]:
        lengths = self._yardstick.lengths
        used = np.isfinite(lengths) & (lengths > 0) & self._annotated.any(1)
        used = used if chosen is None else used & chosen
        if not used.any():
            return float("nan"), {}
        result = pckh(
            self._keypoints[used],
            self._targets[used],
            self._annotated[used],
            lengths[used],
            self._yardstick.threshold if threshold is None else threshold,
            joint_names=self._truth.joints.names,
        )
        return result.mean, result.per_joint

    def curve(self) -> tuple[list[float], list[float]]:
        """Thresholds in units, and the percent of the keypoints within each."""
        top = 2 * self._yardstick.threshold
        thresholds = (_CURVE[1:] * top).tolist()
        return thresholds, [self.mean(threshold) for threshold in thresholds]

    def by_size(self) -> tuple[list[float], list[float]]:
        """Median sizes in pixels (the longer side of the box) of fifths of the people by size, and their percent."""
        sizes = np.array([person.box[2:].max() for person in self._truth.persons], np.float64)
        order = np.argsort(sizes, kind="stable")
        medians, shares = [], []
        for part in np.array_split(order, min(_SIZES, len(order))):
            chosen = np.zeros(len(sizes), bool)
            chosen[part] = True
            medians.append(float(np.median(sizes[part])))
            shares.append(self.mean(chosen=chosen))
        return medians, shares

    def errors(self) -> Floats:
        """Mean distance of each person's keypoints (N,) in units, each at most 1; NaN where nothing is annotated."""
        distance = np.linalg.norm(self._keypoints - self._targets, axis=-1)
        cut = np.minimum(distance / self._yardstick.lengths[:, None], 1.0)
        counted = self._annotated > 0
        count = counted.sum(1)
        total = np.where(counted, np.nan_to_num(cut, nan=1.0), 0.0).sum(1)
        known = (count > 0) & np.isfinite(self._yardstick.lengths) & (self._yardstick.lengths > 0)
        return np.where(known, total / np.maximum(count, 1), np.nan)
