"""From predictions for the people of a data set to the figures of the field, and to the lines that show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.data import EvaluationSet, Person, keypoint_category_id, region_from_box
from cdkd_ext.errors import check
from cdkd_ext.evaluation.coco import coco_keypoint_ap, coco_results
from cdkd_ext.evaluation.pckh import pckh
from cdkd_ext.inference.predict import Predictions

_AP_NAMES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR")


def submission(
    truth: EvaluationSet, predictions: Predictions, *, crop_size: tuple[int, int], score_threshold: float
) -> list[dict[str, Any]]:
    """Return the predictions for all of `truth.persons`, in order, as results in COCO's format (`coco_results`).

    Args:
        truth: the people.
        predictions: one for each of them.
        crop_size: (height, width) of the crops, for the regions' aspect ratio.
        score_threshold: joint scores at or below it do not count.
    """
    _check_complete(truth, predictions)
    regions = [region_from_box(person.box, crop_size, truth.padding).size for person in truth.persons]
    return coco_results(
        predictions.keypoints,
        predictions.scores,
        [person.image_id for person in truth.persons],
        [person.score for person in truth.persons],
        np.prod(regions, axis=1),
        sigmas=truth.joints.sigmas,
        category_id=keypoint_category_id(truth.annotation_file),
        score_threshold=score_threshold,
    )


def measure(
    truth: EvaluationSet, predictions: Predictions, *, crop_size: tuple[int, int], score_threshold: float
) -> dict[str, Any]:
    """Return the figures for predictions of all of `truth.persons`, in order.

    With the metric "pckh": ``pckh`` and ``pckh_0.1``, the means at the thresholds 0.5 and 0.1, and ``pckh_per_joint`` at
    0.5, in percent; ``people`` who were measured, ``people_without_head_size`` who could not be, and ``reference``.
    With "AP": the entries of `coco_keypoint_ap`. Always ``boxes`` and the number of ``people`` (with "AP" boxes).

    Args:
        truth: the people and their annotations.
        predictions: one for each of them.
        crop_size: (height, width) of the crops.
        score_threshold: joint scores at or below it do not count in a COCO result's score.
    """
    _check_complete(truth, predictions)
    if truth.metric == "none":
        return {"people": len(truth.persons), "boxes": truth.boxes}
    if truth.metric == "AP":
        results = submission(truth, predictions, crop_size=crop_size, score_threshold=score_threshold)
        figures = coco_keypoint_ap(truth.annotation_file, results, joints=truth.joints)
        return {**figures, "people": len(truth.persons), "boxes": truth.boxes}
    targets, annotated, head_sizes = _targets(truth.persons)
    names = truth.joints.names
    result = pckh(predictions.keypoints, targets, annotated, head_sizes, joint_names=names)
    strict = pckh(predictions.keypoints, targets, annotated, head_sizes, 0.1, joint_names=names)
    return {
        "pckh": result.mean,
        "pckh_0.1": strict.mean,
        "pckh_per_joint": result.per_joint,
        "people": result.people,
        "people_without_head_size": result.people_without_head_size,
        "boxes": truth.boxes,
        "reference": truth.reference,
    }


def describe(figures: dict[str, Any]) -> str:
    """The figures of `measure` in one line, with where boxes and lengths come from."""
    if "AP" in figures:
        values = "  ".join(f"{name} {100 * figures[name]:.1f}" for name in _AP_NAMES)
        return f"{values} (percent), {figures['people']} people; boxes: {figures['boxes']}"
    if "pckh" not in figures:
        return f"not measured, {figures['people']} people; boxes: {figures['boxes']}"
    left_out = figures["people_without_head_size"]
    people = f"{figures['people']} people" + (
        f" ({left_out} without a head length left out)" if left_out else ""
    )
    return (
        f"PCKh@0.5 {figures['pckh']:.2f}, {people}; head length: {figures['reference']}; "
        f"boxes: {figures['boxes']}"
    )


def table(figures: dict[str, Any]) -> str:
    """The figures of `measure` as the lines of a table, then `describe`."""
    rows = dict(figures.get("pckh_per_joint", {}))
    if rows:
        rows |= {"mean": figures["pckh"], "mean@0.1": figures["pckh_0.1"]}
    width = max(map(len, rows), default=0)
    return "\n".join([*(f"{name:<{width}}  {value:6.2f}" for name, value in rows.items()), describe(figures)])


def _targets(
    persons: Sequence[Person],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    return (
        np.stack([person.keypoints for person in persons]),
        np.stack([person.annotated for person in persons]),
        np.array([person.head_size for person in persons]),
    )


def _check_complete(truth: EvaluationSet, predictions: Predictions) -> None:
    count = len(truth.persons)
    check(
        np.array_equal(predictions.indices, np.arange(count)),
        "predictions.indices",
        f"{len(predictions.indices)} indices",
        f"0 to {count - 1}, each person once and in order",
    )
