"""From predictions for the people of a data set to the metrics of the field, and to the lines that show them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.codecs import codec_for
from cdkd_ext.data import ANNOTATED_BOXES, EvaluationSet, Person, keypoint_category_id, region_from_box
from cdkd_ext.errors import check
from cdkd_ext.evaluation.coco import OKS_THRESHOLD, coco_keypoint_ap, coco_results
from cdkd_ext.evaluation.pckh import pckh
from cdkd_ext.inference import CropNetwork, Predictions
from cdkd_ext.models import ModelSpec
from cdkd_ext.resampling import Resample

_logger = logging.getLogger(__name__)

# what says how crops are cut and which scores count
Described = ModelSpec | CropNetwork
_AP_NAMES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR")


def crop_padding(truth: EvaluationSet, spec: Described) -> float:
    """How much larger than the box a crop is: as the evaluation says, or else as the network was trained."""
    return spec.padding if truth.padding is None else truth.padding


def crop_resample(truth: EvaluationSet, spec: Described) -> Resample:
    """How the crops of an evaluation are made of larger regions: its own way, or the network's."""
    return truth.resample or spec.resample


def submission(truth: EvaluationSet, predictions: Predictions, spec: Described) -> list[dict[str, Any]]:
    """Return the predictions for all of `truth.persons`, in order, as results in COCO's format (`coco_results`).

    Where the joints have no sigmas nobody is left out for being too similar to another, which a warning of the log says
    of detected people: annotated boxes are one per person.

    Args:
        truth: the people.
        predictions: one for each of them.
        spec: the network or its description: the regions' aspect ratio and padding, and which joint scores count. Joints that
            it says nothing of are at 0, 0 with score 0, as COCO's format has it.
    """
    _check_complete(truth, predictions)
    padding = crop_padding(truth, spec)
    comparable = truth.joints.sigmas is not None
    if not comparable and truth.boxes != ANNOTATED_BOXES:
        _logger.warning(
            "results: no OKS-NMS, as the joints have no sigmas: a person may be in them several times"
        )
    unnamed = keypoint_category_id(truth.annotation_file, truth.category)
    regions = [region_from_box(person.box, spec.input_size, padding).size for person in truth.persons]
    return coco_results(
        np.where(_unsaid(predictions)[:, None], 0, predictions.keypoints),
        predictions.scores,
        [person.image_id for person in truth.persons],
        [person.score for person in truth.persons],
        np.prod(regions, axis=1),
        sigmas=truth.joints.sigmas,
        category_id=[
            unnamed if person.category_id is None else person.category_id for person in truth.persons
        ],
        score_threshold=_score_threshold(spec),
        oks_threshold=OKS_THRESHOLD if comparable else None,
    )


def measure(truth: EvaluationSet, predictions: Predictions, spec: Described) -> dict[str, Any]:
    """Return the metrics for predictions of all of `truth.persons`, in order.

    With the metric "pckh": ``pckh`` and ``pckh_0.1``, the means at the thresholds 0.5 and 0.1, and ``pckh_per_joint`` at
    0.5, in percent; ``people`` who were measured, ``people_without_head_size`` who could not be, and ``reference``.
    Joints that the network says nothing of (all NaN) are left out of these and have nan. With "AP": the entries of
    `coco_keypoint_ap`, which counts such joints as missed. Always ``boxes`` and the number of ``people`` (with "AP" boxes).

    Args:
        truth: the people and their annotations.
        predictions: one for each of them.
        spec: the network, or its description.
    """
    _check_complete(truth, predictions)
    if truth.metric == "none":
        return {"people": len(truth.persons), "boxes": truth.boxes}
    if truth.metric == "AP":
        results = submission(truth, predictions, spec)
        metrics = coco_keypoint_ap(
            truth.annotation_file, results, joints=truth.joints, category=truth.category
        )
        return {**metrics, "people": len(truth.persons), "boxes": truth.boxes}
    targets, annotated, head_sizes = _targets(truth.persons)
    annotated = annotated * ~_unsaid(predictions)
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


def describe(metrics: dict[str, Any]) -> str:
    """The metrics of `measure` in one line, with where boxes and lengths come from."""
    if "AP" in metrics:
        values = "  ".join(f"{name} {100 * metrics[name]:.1f}" for name in _AP_NAMES)
        return f"{values} (percent), {metrics['people']} people; boxes: {metrics['boxes']}"
    if "agreement" in metrics:
        people = f"{metrics['people']} people who were not trained on"
        return f"agreement with the teacher {metrics['agreement']:.2f} percent, {people}"
    if "pckh" not in metrics:
        return f"not measured, {metrics['people']} people; boxes: {metrics['boxes']}"
    left_out = metrics["people_without_head_size"]
    people = f"{metrics['people']} people" + (
        f" ({left_out} without a head length left out)" if left_out else ""
    )
    return (
        f"PCKh@0.5 {metrics['pckh']:.2f}, {people}; head length: {metrics['reference']}; "
        f"boxes: {metrics['boxes']}"
    )


def table(metrics: dict[str, Any]) -> str:
    """The metrics of `measure` as the lines of a table, then `describe`, and which joints come from which if it was noted."""
    rows = dict(metrics.get("pckh_per_joint", {}))
    if rows:
        rows |= {"mean": metrics["pckh"], "mean@0.1": metrics["pckh_0.1"]}
    width = max(map(len, rows), default=0)
    told = describe(metrics)
    if "flip_test" in metrics:
        told += f"; {'with' if metrics['flip_test'] else 'without'} the flip test"
    lines = [*(f"{name:<{width}}  {value:6.2f}" for name, value in rows.items()), told]
    return "\n".join(lines + ([f"joints: {metrics['joints']}"] if metrics.get("joints") else []))


def _score_threshold(spec: Described) -> float:
    return spec.score_threshold if isinstance(spec, CropNetwork) else codec_for(spec).score_threshold


def _unsaid(predictions: Predictions) -> npt.NDArray[np.bool_]:
    """(J,): the joints that a network of other joints says nothing of."""
    return np.isnan(predictions.keypoints.numpy()).all(axis=(0, 2))


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
