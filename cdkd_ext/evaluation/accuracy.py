"""How many keypoints of people are right, over the joints that a network knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cdkd_ext.data import Person
from cdkd_ext.errors import check, check_option
from cdkd_ext.evaluation.pckh import counts_in_mean, pckh
from cdkd_ext.joints import JointSet

OKS_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
ACCURACY_NAMES = {"pckh": "PCKh@0.5", "AP": "AR"}


def people_accuracy(
    keypoints: npt.NDArray[np.floating],
    persons: Sequence[Person],
    joints: JointSet,
    counted: npt.NDArray[np.bool_],
    metric: str,
) -> float:
    """Return PCKh@0.5, or COCO's average recall over OKS from 0.5 to 0.95 for annotated boxes, in percent.

    Args:
        keypoints: (N, J, 2) in pixels of the images.
        persons: N people with annotations.
        joints: J names, with sigmas for AR.
        counted: (J,) true for the joints that count.
        metric: "pckh" or "AP", for which AR stands.

    Returns:
        The metric; nan where no person can be measured.

    Raises:
        InputError: shapes that do not fit, or another metric.
    """
    check_option("metric", metric, ACCURACY_NAMES)
    shape = (len(persons), len(joints), 2)
    check(keypoints.shape == shape, "keypoints", keypoints.shape, f"shape {shape}")
    if not persons:
        return float("nan")
    targets = np.stack([person.keypoints for person in persons])
    annotated = np.stack([person.annotated for person in persons]) * counted > 0
    if metric == "pckh":
        sizes = np.array([person.head_size for person in persons])
        measured = np.isfinite(sizes) & (sizes > 0)
        if not (annotated & counts_in_mean(joints.names))[measured].any():
            return float("nan")
        return pckh(keypoints, targets, annotated, sizes, joint_names=joints.names).mean
    areas = np.array([person.area for person in persons])
    return _average_recall(keypoints, targets, annotated, areas, joints)


def _average_recall(
    keypoints: npt.NDArray[np.floating],
    targets: npt.NDArray[np.floating],
    annotated: npt.NDArray[np.bool_],
    areas: npt.NDArray[np.floating],
    joints: JointSet,
) -> float:
    """The share of the people found, over thresholds of the object keypoint similarity."""
    assert joints.sigmas is not None
    squared = ((keypoints - targets) ** 2).sum(-1)
    variances = (2 * np.array(joints.sigmas)) ** 2
    similarity = np.exp(-squared / (2 * variances * (areas[:, None] + np.spacing(1))))
    similarity = np.where(annotated, np.nan_to_num(similarity), 0)
    count = annotated.sum(1)
    if not count.any():
        return float("nan")
    people = similarity[count > 0].sum(1) / count[count > 0]
    return float(100 * (people[:, None] >= OKS_THRESHOLDS).mean())
