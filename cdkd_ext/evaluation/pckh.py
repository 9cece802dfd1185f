"""PCKh: the percentage of keypoints within a fraction of the head's length (Andriluka et al., CVPR 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check
from cdkd_ext.joint_sides import kind_of, split_side
from cdkd_ext.joints import MPII_JOINTS

# the field leaves these out of the mean, since the head's length says little about them
LEFT_OUT_OF_MEAN = ("pelvis", "thorax")
_IN_NO_GROUP = (*LEFT_OUT_OF_MEAN, "upper_neck")
_TABLE_ORDER = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")


@dataclass(frozen=True)
class PckhResult:
    """PCKh in percent.

    Attributes:
        mean: over all annotated joints that count (pelvis and thorax do not).
        per_joint: the mean of left and right for each kind of joint, in the order of the field's tables;
            nan where nothing is annotated.
        counts: annotated joints behind each entry of `per_joint`.
        threshold: in head lengths.
        people: how many were used.
        people_without_head_size: how many were left out, because nothing can be measured on them.
    """

    mean: float
    per_joint: dict[str, float]
    counts: dict[str, int]
    threshold: float
    people: int
    people_without_head_size: int


def pckh(
    predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    annotated: npt.ArrayLike,
    head_sizes: npt.ArrayLike,
    threshold: float = 0.5,
    *,
    joint_names: Sequence[str] = MPII_JOINTS.names,
) -> PckhResult:
    """Compute PCKh as the field does.

    A joint is right if its distance is at most `threshold` head lengths. The mean is weighted by the joints'
    annotated counts and leaves out ``pelvis`` and ``thorax``; ``upper_neck`` counts in the mean but has no
    entry of its own; occluded joints count if they are annotated. Both sides use the same pixel convention
    (the 1-based MATLAB ground truth of MPII needs predictions + 1).

    Args:
        predictions: (N, J, 2) in image pixels; one that is not finite counts as wrong.
        targets: (N, J, 2) in image pixels, finite where annotated.
        annotated: (N, J), positive where annotated.
        head_sizes: (N,) in pixels; on MPII 0.6 times the diagonal of the head's rectangle. People whose size
            is not a positive finite number are left out.
        threshold: in head lengths, positive.
        joint_names: J names; ``left_x`` and ``right_x``, or other spellings of the sides, share the entry ``x``, ``head_top``
            is ``head``.

    Raises:
        InputError: shapes do not fit, a target is not finite, or there is nothing to measure.
    """
    predicted = np.asarray(predictions, dtype=np.float64)
    target = np.asarray(targets, dtype=np.float64)
    known = np.asarray(annotated) > 0
    lengths = np.asarray(head_sizes, dtype=np.float64)
    _check_shapes(predicted, target, known, lengths, len(joint_names))
    check(0 < threshold < np.inf, "threshold", threshold, "a positive number of head lengths")

    used = np.isfinite(lengths) & (lengths > 0)
    check(
        used.any(), "head_sizes", f"none among {len(lengths)} people", "at least one positive finite length"
    )
    predicted, target, known, lengths = predicted[used], target[used], known[used], lengths[used]
    check(np.isfinite(target[known]).all(), "targets", "nan or inf", "finite coordinates where annotated")

    right = within(predicted, target, lengths, threshold) & known
    count = known.sum(axis=0)
    score = np.full(len(joint_names), np.nan)
    np.divide(100.0 * right.sum(axis=0), count, out=score, where=count > 0)

    in_mean = counts_in_mean(joint_names) & (count > 0)
    check(in_mean.any(), "annotated", "no joint", "at least one annotated joint that counts in the mean")
    groups = _joint_groups(joint_names)
    return PckhResult(
        mean=float((score[in_mean] * count[in_mean]).sum() / count[in_mean].sum()),
        per_joint={name: _mean_of_sides(score[joints]) for name, joints in groups.items()},
        counts={name: int(count[joints].sum()) for name, joints in groups.items()},
        threshold=float(threshold),
        people=int(used.sum()),
        people_without_head_size=int((~used).sum()),
    )


def within(
    predicted: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    lengths: npt.NDArray[np.float64],
    threshold: float,
) -> npt.NDArray[np.bool_]:
    """Which of (N, J, 2) keypoints lie within a share of (N,) lengths of their targets, (N, J)."""
    distance = np.linalg.norm(predicted - target, axis=-1) / lengths[:, None]
    return np.asarray(distance <= threshold)


def counts_in_mean(joint_names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which joints are part of the mean: all but pelvis and thorax, however these are spelt."""
    return np.array([kind_of(name) not in LEFT_OUT_OF_MEAN for name in joint_names], bool)


def _joint_groups(joint_names: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the joints behind each entry of a result, in the order of the field's tables."""
    groups: dict[str, list[int]] = {}
    for j, name in enumerate(joint_names):
        kind = kind_of(name)
        if kind not in _IN_NO_GROUP:
            known = "head" if kind == "head_top" else kind
            groups.setdefault(known if known in _TABLE_ORDER else split_side(name)[1], []).append(j)
    order = [name for name in _TABLE_ORDER if name in groups]
    return {name: groups[name] for name in order + [name for name in groups if name not in order]}


def _mean_of_sides(scores: npt.NDArray[np.float64]) -> float:
    """The plain mean of the sides that are annotated at all."""
    scores = scores[~np.isnan(scores)]
    return float(scores.mean()) if scores.size else float("nan")


def _check_shapes(
    predicted: npt.NDArray[Any],
    target: npt.NDArray[Any],
    known: npt.NDArray[Any],
    lengths: npt.NDArray[Any],
    joints: int,
) -> None:
    check(
        predicted.ndim == 3 and predicted.shape[1:] == (joints, 2),
        "predictions",
        predicted.shape,
        f"shape (N, {joints}, 2)",
    )
    people = len(predicted)
    check(
        target.shape == predicted.shape,
        "targets",
        target.shape,
        f"shape {predicted.shape} of the predictions",
    )
    check(known.shape == (people, joints), "annotated", known.shape, f"shape ({people}, {joints})")
    check(lengths.shape == (people,), "head_sizes", lengths.shape, f"shape ({people},)")
