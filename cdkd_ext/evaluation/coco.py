"""COCO keypoints: instance scores, OKS non-maximum suppression, results files, and average precision."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.codecs import HeatmapCodec
from cdkd_ext.data.coco import category_ids, in_categories, joint_set, keypoint_categories
from cdkd_ext.data.json_object import JsonObject
from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.joints import COCO_JOINTS, JointSet

Floats = npt.NDArray[np.float64]

OKS_THRESHOLD = 0.9
AP_MEASURES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
_DECIMALS = 3


def instance_scores(
    box_scores: npt.ArrayLike, joint_scores: npt.ArrayLike, threshold: float = HeatmapCodec.score_threshold
) -> Floats:
    """Return the score of each person: the box's, times the mean of the joints' scores above a threshold.

    Args:
        box_scores: (N,).
        joint_scores: (N, J).
        threshold: joints at or below it do not count; a person without any joint above it scores 0.

    Returns:
        (N,) float64.
    """
    boxes, joints = _floats(box_scores), _floats(joint_scores)
    check(joints.ndim == 2, "joint_scores", joints.shape, "shape (N, J)")
    check(boxes.shape == (len(joints),), "box_scores", boxes.shape, f"shape ({len(joints)},)")
    counted = joints > threshold
    return boxes * np.where(counted, joints, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)


def object_keypoint_similarity(
    keypoints: npt.ArrayLike, areas: npt.ArrayLike, sigmas: npt.ArrayLike
) -> Floats:
    """Return the similarity of every two people, all joints counted and the two areas averaged.

    Args:
        keypoints: (N, J, 2) in pixels.
        areas: (N,) in square pixels.
        sigmas: (J,), COCO's standard deviations of the joints over object scale.

    Returns:
        (N, N) float64 in [0, 1].
    """
    points, area, sigma = _floats(keypoints), _floats(areas), _floats(sigmas)
    check(points.ndim == 3 and points.shape[2] == 2, "keypoints", points.shape, "shape (N, J, 2)")
    check(area.shape == (len(points),), "areas", area.shape, f"shape ({len(points)},)")
    check(sigma.shape == points.shape[1:2], "sigmas", sigma.shape, f"shape ({points.shape[1]},)")
    check((sigma > 0).all(), "sigmas", sigma.tolist(), "positive numbers")
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=-1)
    mean_area = (area[:, None] + area[None]) / 2 + np.spacing(1)
    return np.exp(-squared / (2 * (2 * sigma) ** 2 * mean_area[..., None])).mean(axis=-1)


def oks_nms(
    keypoints: npt.ArrayLike,
    scores: npt.ArrayLike,
    areas: npt.ArrayLike,
    sigmas: npt.ArrayLike,
    threshold: float = OKS_THRESHOLD,
) -> npt.NDArray[np.int64]:
    """Choose the people of one image, from the best score down, who are not too similar to a better one.

    Args:
        keypoints: (N, J, 2) in pixels.
        scores: (N,).
        areas: (N,) in square pixels.
        sigmas: (J,).
        threshold: a larger similarity to a chosen person excludes.

    Returns:
        The chosen people's indices, best score first; of equal scores the first comes first.
    """
    score = _floats(scores)
    similarity = object_keypoint_similarity(keypoints, areas, sigmas)
    check(score.shape == (len(similarity),), "scores", score.shape, f"shape ({len(similarity)},)")
    excluded = np.zeros(len(score), dtype=bool)
    chosen = []
    for i in np.argsort(-score, kind="stable"):
        if not excluded[i]:
            chosen.append(i)
            excluded |= similarity[i] > threshold
    return np.array(chosen, np.int64)


def coco_results(
    keypoints: npt.ArrayLike,
    joint_scores: npt.ArrayLike,
    image_ids: Sequence[int | str],
    box_scores: npt.ArrayLike,
    areas: npt.ArrayLike,
    *,
    sigmas: Sequence[float] | npt.ArrayLike | None = COCO_JOINTS.sigmas,
    category_id: int | str | Sequence[int | str] = 1,
    score_threshold: float = HeatmapCodec.score_threshold,
    oks_threshold: float | None = OKS_THRESHOLD,
) -> list[dict[str, Any]]:
    """Return results in COCO's submission format: scored, and without what `oks_nms` excludes in each image.

    Args:
        keypoints: (N, J, 2) in pixels of the full images, finite.
        joint_scores: (N, J).
        image_ids: N ids of images.
        box_scores: (N,), 1 for annotated boxes.
        areas: (N,) in square pixels, of the regions that were cropped.
        sigmas: (J,); not looked at where there is no `oks_threshold`.
        category_id: of the person category, or N ids, one for each.
        score_threshold: see `instance_scores`; 0.2 for heatmaps, 0.02 for SimCC.
        oks_threshold: see `oks_nms`; None keeps all people, in their order.

    Returns:
        Dictionaries with ``image_id``, ``category_id``, ``keypoints`` (x, y and score of each joint, positions rounded to
        a thousandth of a pixel) and ``score``, in the order of the images' first people.
    """
    points, joints = _floats(keypoints), _floats(joint_scores)
    boxes, area = _floats(box_scores), _floats(areas)
    check(points.ndim == 3 and points.shape[2] == 2, "keypoints", points.shape, "shape (N, J, 2)")
    check(np.isfinite(points).all(), "keypoints", "nan or inf", "finite coordinates")
    check(joints.shape == points.shape[:2], "joint_scores", joints.shape, f"shape {points.shape[:2]}")
    check(np.isfinite(joints).all(), "joint_scores", "nan or inf", "finite scores")
    check(len(image_ids) == len(points), "image_ids", len(image_ids), f"{len(points)} ids")
    check(area.shape == (len(points),), "areas", area.shape, f"shape ({len(points)},)")
    if sigmas is None and oks_threshold is not None:
        fail("sigmas", "none", "one per joint")
    image_ids, categories = _plain(image_ids), _plain(category_id)
    categories = categories if isinstance(categories, list) else [categories] * len(points)
    check(len(categories) == len(points), "category_id", len(categories), f"{len(points)} ids")
    scores = instance_scores(boxes, joints, score_threshold)
    rows = np.concatenate([points.round(_DECIMALS), joints[..., None]], axis=2)
    people: dict[int | str, list[int]] = {}
    for i, image_id in enumerate(image_ids):
        people.setdefault(image_id, []).append(i)
    results = []
    for image_id, members in people.items():
        chosen = np.array(members)
        if sigmas is not None and oks_threshold is not None:
            kept = oks_nms(points[members], scores[members], area[members], sigmas, oks_threshold)
            chosen = chosen[kept]
        for i in chosen:
            result = {"image_id": image_id, "category_id": categories[i]}
            results.append(result | {"keypoints": rows[i].ravel().tolist(), "score": float(scores[i])})
    return results


def coco_keypoint_ap(
    annotation_file: str | os.PathLike[str],
    results: Sequence[Mapping[str, Any]] | str | os.PathLike[str],
    *,
    joints: JointSet | None = None,
    category: int | str | None = None,
) -> dict[str, float]:
    """Average precision and recall over object keypoint similarity, by pycocotools.

    All images of the annotation file count, also those without a result.

    Args:
        annotation_file: COCO-format keypoint annotations.
        results: dictionaries in COCO's results format, such as `coco_results` returns, or a JSON file of them;
            other entries than ``image_id``, ``category_id``, ``keypoints`` and ``score`` do not matter.
        joints: the joint set; without it, the category tells names and sigmas (COCO's are known).
        category: name or id of the people's category; without it, categories with the same joints count as one.

    Returns:
        AP, AP50, AP75, AP_M, AP_L, AR, AR50, AR75, AR_M and AR_L, fractions of 1 as pycocotools gives them; nan for a
        size that no annotated person has.

    Raises:
        InputError: a file cannot be read, a result belongs to no image or has another number of joints, there
            is no result, or no sigmas are known.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError("coco_keypoint_ap: needs `pip install pycocotools`") from error
    content = JsonObject.read(annotation_file)
    categories = keypoint_categories(content, category)
    joints = joint_set(categories[0], joints)
    ids = category_ids(categories)
    if joints.sigmas is None:
        fail(f"{categories[0].prefix}sigmas", "no such key", f"the {len(joints)} joints' OKS constants")

    truth = COCO()
    truth.dataset = _ground_truth(content, ids, len(joints))
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(_checked_results(results, truth.imgs.keys(), ids, len(joints)))
        evaluation = COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(joints.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools says -1 where there is nothing to measure
    values = (float(value) if value >= 0 else math.nan for value in evaluation.stats)
    return dict(zip(AP_MEASURES, values, strict=True))


def _ground_truth(content: JsonObject, category_ids: Sequence[int | str], joints: int) -> dict[str, Any]:
    """The images and people in the full form that pycocotools takes for granted."""
    people: list[dict[str, Any]] = []
    for annotation in content.objects("annotations"):
        if not in_categories(annotation, category_ids):
            continue
        crowd = annotation.flag("iscrowd")
        values = [0.0] * (3 * joints)
        if annotation.has_values("keypoints"):
            values = annotation.numbers("keypoints", 3 * joints)
        # crowds and people without annotated joints excuse detections around them: without a box, none
        if not annotation.has_values("bbox") and (crowd or not any(values[2::3])):
            continue
        box = annotation.numbers("bbox", 4)
        person = {
            # pycocotools counts a match with id 0 as none
            "id": len(people) + 1,
            "image_id": annotation.identity("image_id"),
            "category_id": category_ids[0],
            "keypoints": values,
            "num_keypoints": sum(value > 0 for value in values[2::3]),
            "bbox": box,
            "area": annotation.number("area") if annotation.has("area") else box[2] * box[3],
            "iscrowd": int(crowd),
        }
        people.append(person)
    images = [{"id": image.identity("id")} for image in content.objects("images")]
    # pycocotools puts them in order
    kinds = {type(image["id"]).__name__ for image in images}
    check(len(kinds) < 2, f"{content.prefix}images: id", " and ".join(sorted(kinds)), "ids of one type")
    return {"images": images, "categories": [{"id": category_ids[0]}], "annotations": people}


def _checked_results(
    results: Sequence[Mapping[str, Any]] | str | os.PathLike[str],
    image_ids: Iterable[int | str],
    category_ids: Sequence[int | str],
    joints: int,
) -> list[dict[str, Any]]:
    if isinstance(results, (str, os.PathLike)):
        entries, source = list(JsonObject.read_list(results)), str(results)
    else:
        source = "results"
        entries = [
            JsonObject(
                {key: _plain(value) for key, value in result.items()}, f"results[{i}]", f"results[{i}]."
            )
            for i, result in enumerate(results)
        ]
    known = set(image_ids)
    checked = []
    for entry in entries:
        if entry.identity("category_id") not in category_ids:
            continue
        image_id = entry.identity("image_id")
        if image_id not in known:
            fail(f"{entry.prefix}image_id", repr(image_id), "one of the annotated images")
        keypoints, score = entry.numbers("keypoints", 3 * joints), entry.number("score")
        checked.append(
            {"image_id": image_id, "category_id": category_ids[0], "keypoints": keypoints, "score": score}
        )
    check(checked, source, "none", f"at least one result of category {' or '.join(map(str, category_ids))}")
    return checked


def _plain(value: Any) -> Any:
    """Lists and numbers, as JSON has them, in place of arrays, their elements and sequences of those."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _floats(values: npt.ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)
