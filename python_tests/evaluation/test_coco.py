"""Instance scores, OKS suppression and average precision, each against a twin in plain loops."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import (
    coco_keypoint_ap,
    coco_results,
    instance_scores,
    object_keypoint_similarity,
    oks_nms,
)
from cdkd_ext.joints import COCO_JOINTS, JointSet

SIGMAS = COCO_JOINTS.sigmas
THRESHOLDS = [0.5 + 0.05 * i for i in range(10)]
RECALLS = [i / 100 for i in range(101)]


def plain_instance_score(box: float, joints: Any, threshold: float) -> float:
    total, count = 0.0, 0
    for score in joints:
        if score > threshold:
            total += score
            count += 1
    return box * total / count if count else 0.0


def plain_similarity(a: Any, b: Any, area_a: float, area_b: float, sigmas: Any) -> float:
    total = 0.0
    for (xa, ya), (xb, yb), sigma in zip(a, b, sigmas, strict=True):
        squared = (xa - xb) ** 2 + (ya - yb) ** 2
        total += math.exp(-squared / (2 * sigma) ** 2 / ((area_a + area_b) / 2) / 2)
    return total / len(sigmas)


def plain_nms(keypoints: Any, scores: Any, areas: Any, sigmas: Any, threshold: float) -> list[int]:
    waiting = sorted(range(len(scores)), key=lambda i: -scores[i])
    chosen: list[int] = []
    while waiting:
        best, *others = waiting
        chosen.append(best)
        waiting = []
        for i in others:
            similarity = plain_similarity(keypoints[best], keypoints[i], areas[best], areas[i], sigmas)
            if similarity <= threshold:
                waiting.append(i)
    return chosen


@settings(max_examples=40)
@given(st.integers(0, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2, 0.9]))
def test_instance_scores(people: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    boxes, joints = rng.random(people), rng.random((people, 17)).astype(np.float32)
    joints[: people // 2] /= 4
    expected = [plain_instance_score(box, row, threshold) for box, row in zip(boxes, joints, strict=True)]
    assert instance_scores(boxes, joints, threshold).tolist() == pytest.approx(expected)


def test_an_instance_without_a_sure_joint_scores_nothing() -> None:
    scores = instance_scores([0.5, 0.5], [[0.2, 0.2], [0.2, 0.8]], 0.2)
    assert scores.tolist() == [0, 0.4]


@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.9]), st.integers(1, 17))
def test_suppression(people: int, seed: int, threshold: float, joints: int) -> None:
    rng = np.random.default_rng(seed)
    # people around few places, so that some resemble each other
    base = rng.uniform(0, 100, (3, joints, 2))
    keypoints = base[rng.integers(3, size=people)] + rng.normal(0, 1.5, (people, joints, 2))
    scores, areas, sigmas = rng.random(people), rng.uniform(500, 2000, people), SIGMAS[:joints]
    chosen = oks_nms(keypoints, scores, areas, sigmas, threshold)
    assert chosen.tolist() == plain_nms(keypoints, scores, areas, sigmas, threshold)
    similarity = object_keypoint_similarity(keypoints, areas, sigmas)
    for i in range(people):
        for k in range(people):
            expected = plain_similarity(keypoints[i], keypoints[k], areas[i], areas[k], sigmas)
            assert similarity[i, k] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_suppression_by_hand() -> None:
    person = np.zeros((2, 2))
    keypoints = np.stack([person, person + 0.1, person + 500, person])
    # the third is elsewhere; of the equal first and fourth the first stays
    assert oks_nms(keypoints, [0.5, 0.9, 0.1, 0.5], [100] * 4, [0.1, 0.1]).tolist() == [1, 2]
    assert oks_nms(keypoints, [0.5, 0.4, 0.1, 0.5], [100] * 4, [0.1, 0.1]).tolist() == [0, 2]
    # nobody is more than entirely similar
    assert len(oks_nms(keypoints, [0.5, 0.9, 0.1, 0.5], [100] * 4, [0.1, 0.1], 1.0)) == 4


def test_results_are_scored_suppressed_and_in_the_submission_format() -> None:
    keypoints = np.zeros((3, 17, 2))
    keypoints[1] += 0.0004
    keypoints[2] += 300.12345
    scores = np.full((3, 17), 0.5)
    scores[1] = 0.9
    scores[2, 1:] = 0.1
    results = coco_results(keypoints, scores, [4, 4, 4], [1, 0.5, 1], [1000.0] * 3)
    # the first and the second are the same person, and 0.5 x 1 beats 0.9 x 0.5; the third counts one joint
    assert [result["score"] for result in results] == [0.5, 0.5]
    assert results[0].keys() == {"image_id", "category_id", "keypoints", "score"}
    assert results[0]["keypoints"] == [0, 0, 0.5] * 17
    assert results[1]["keypoints"][:6] == [300.123, 300.123, 0.5, 300.123, 300.123, 0.1]
    assert json.loads(json.dumps(results)) == results
    # people of different pictures do not suppress each other
    apart = coco_results(keypoints, scores, [4, 5, "x"], [1, 0.5, 1], [1000.0] * 3, category_id=7)
    assert [(result["image_id"], result["category_id"]) for result in apart] == [(4, 7), (5, 7), ("x", 7)]
    # SimCC's threshold lets more joints count
    low = coco_results(keypoints, scores, [4, 4, 4], [1, 0.5, 1], [1000.0] * 3, score_threshold=0.02)
    assert low[1]["score"] == pytest.approx((0.5 + 16 * 0.1) / 17)


def test_results_without_suppression_need_no_sigmas() -> None:
    keypoints, scores = np.zeros((3, 2, 2)), np.array([[0.5, 0.5], [0.9, 0.9], [0.7, 0.7]])
    results = coco_results(keypoints, scores, [4, 4, 4], [1] * 3, [9] * 3, sigmas=None, oks_threshold=None)
    assert [result["score"] for result in results] == pytest.approx([0.5, 0.9, 0.7])


def test_results_of_arrays_are_those_of_lists() -> None:
    keypoints, scores = np.zeros((2, 17, 2)), np.full((2, 17), 0.5)
    expected = coco_results(keypoints, scores, [4, 5], [1, 1], [9, 9], category_id=7)
    for ids, category in ((np.array([4, 5]), np.int64(7)), ([np.int32(4), np.int32(5)], np.array([7, 7]))):
        results = coco_results(keypoints, scores, ids, [1, 1], [9, 9], category_id=category)
        assert json.loads(json.dumps(results)) == expected
    assert coco_results(np.zeros((0, 17, 2)), np.zeros((0, 17)), [], [], []) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"keypoints": np.zeros((2, 17))}, "keypoints"),
        ({"keypoints": np.full((2, 17, 2), np.nan)}, "keypoints"),
        ({"joint_scores": np.zeros((2, 16))}, "joint_scores"),
        ({"joint_scores": np.full((2, 17), np.inf)}, "joint_scores"),
        ({"image_ids": [1]}, "image_ids"),
        ({"box_scores": [1]}, "box_scores"),
        ({"areas": [1]}, "areas"),
        ({"sigmas": [0.1] * 16}, "sigmas"),
        ({"sigmas": None}, "sigmas"),
        ({"sigmas": [0.0] * 17}, "sigmas"),
    ],
)
def test_bad_predictions_are_named(change: dict[str, Any], field: str) -> None:
    arguments: dict[str, Any] = {
        "keypoints": np.zeros((2, 17, 2)),
        "joint_scores": np.zeros((2, 17)),
        "image_ids": [1, 1],
        "box_scores": [1, 1],
        "areas": [1, 1],
    }
    with pytest.raises(InputError, match=rf"^{field}: expected"):
        coco_results(**{**arguments, **change})


def plain_ap(content: dict[str, Any], results: list[dict[str, Any]], sigmas: Any) -> dict[str, float]:
    """COCO's keypoint evaluation in plain loops: greedy matching, ignored people, 101-point precision."""
    ranges = {"": (0, 1e10), "_M": (32**2, 96**2), "_L": (96**2, 1e10)}
    metrics: dict[str, float] = {}
    for suffix, (low, high) in ranges.items():
        precisions, recalls = [], []
        for threshold in THRESHOLDS:
            outcomes, positives = [], 0
            for image in content["images"]:
                people = [a for a in content["annotations"] if a["image_id"] == image["id"]]
                ignored = [
                    p["iscrowd"] == 1 or p["num_keypoints"] == 0 or not low <= p["area"] <= high
                    for p in people
                ]
                positives += ignored.count(False)
                found = [r for r in results if r["image_id"] == image["id"]]
                found = sorted(found, key=lambda r: -r["score"])[:20]
                taken = [False] * len(people)
                for result in found:
                    best, match = threshold, None
                    # people that count come first; an ignored one is taken only where none of them fits
                    for g in sorted(range(len(people)), key=lambda g: ignored[g]):
                        if taken[g] and not people[g]["iscrowd"]:
                            continue
                        if match is not None and not ignored[match] and ignored[g]:
                            break
                        similarity = result_similarity(people[g], result, sigmas)
                        if similarity >= best:
                            best, match = similarity, g
                    xs, ys = result["keypoints"][0::3], result["keypoints"][1::3]
                    area = (max(xs) - min(xs)) * (max(ys) - min(ys))
                    if match is not None:
                        taken[match] = True
                        if not ignored[match]:
                            outcomes.append((result["score"], True))
                    elif low <= area <= high:
                        outcomes.append((result["score"], False))
            if positives == 0:
                continue
            right = wrong = 0
            curve = []
            for _, hit in sorted(outcomes, key=lambda outcome: -outcome[0]):
                right, wrong = right + hit, wrong + (not hit)
                curve.append((right / positives, right / (right + wrong)))
            precision = [max((p for r, p in curve if r >= recall), default=0.0) for recall in RECALLS]
            precisions.append(sum(precision) / len(precision))
            recalls.append(right / positives)
        for name, values in (("AP", precisions), ("AR", recalls)):
            metrics[name + suffix] = sum(values) / len(values) if values else math.nan
            if not suffix:
                metrics[name + "50"], metrics[name + "75"] = values[0], values[5]
    return metrics


def result_similarity(person: dict[str, Any], result: dict[str, Any], sigmas: Any) -> float:
    truth, found = person["keypoints"], result["keypoints"]
    annotated = [v > 0 for v in truth[2::3]]
    terms = []
    x, y, w, h = person["bbox"]
    for j, sigma in enumerate(sigmas):
        px, py = found[3 * j], found[3 * j + 1]
        if any(annotated):
            dx, dy = px - truth[3 * j], py - truth[3 * j + 1]
        else:  # distance from the box grown to three times its size
            dx = max(0, x - w - px) + max(0, px - (x + 2 * w))
            dy = max(0, y - h - py) + max(0, py - (y + 2 * h))
        if annotated[j] or not any(annotated):
            e = (dx**2 + dy**2) / (2 * sigma) ** 2 / (person["area"] + np.spacing(1)) / 2
            terms.append(math.exp(-e))
    return sum(terms) / len(terms)


def random_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pictures with people of all kinds, and results near them and elsewhere."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (3, 8, 21, 40)]
    annotations, results = [], []
    for image in images[:-1]:
        for _ in range(int(rng.integers(1, 5))):
            side = float(rng.choice([25, 60, 150]))
            points = rng.uniform(0, side, (17, 2)) + rng.uniform(0, 200, 2)
            annotated = (rng.random(17) < rng.choice([0.0, 0.5, 1.0])) * rng.integers(1, 3, 17)
            low, high = points.min(0), points.max(0)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image["id"],
                    "category_id": 1,
                    "keypoints": np.column_stack([points * (annotated > 0)[:, None], annotated])
                    .ravel()
                    .tolist(),
                    "num_keypoints": int((annotated > 0).sum()),
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(np.prod(high - low)) * 0.7,
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                found = points + rng.normal(0, side * rng.choice([0.01, 0.05, 0.3]), (17, 2))
                results.append(result_of(image["id"], found, float(rng.random())))
    results.append(result_of(40, rng.uniform(0, 90, (17, 2)), 0.99))
    categories = [{"id": 1, "name": "person", **COCO_JOINTS.to_category()}]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def result_of(image_id: int, points: np.ndarray, score: float) -> dict[str, Any]:
    keypoints = np.column_stack([points, np.full(len(points), 0.9)]).ravel().tolist()
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": score}


def written(content: Any, path: Path) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("seed", range(12))
def test_average_precision(seed: int, tmp_path: Path) -> None:
    content, results = random_case(seed)
    file = written(content, tmp_path / "annotations.json")
    metrics = coco_keypoint_ap(file, results)
    assert list(metrics) == ["AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L"]
    assert metrics == pytest.approx(plain_ap(content, results, SIGMAS), nan_ok=True, abs=1e-9)
    arrays = [
        {**r, "keypoints": np.array(r["keypoints"]), "score": np.float64(r["score"]), "center": "anything"}
        for r in results
    ]
    assert coco_keypoint_ap(file, arrays) == pytest.approx(metrics, nan_ok=True, abs=0)
    assert coco_keypoint_ap(file, written(results, tmp_path / "results.json")) == pytest.approx(
        metrics, nan_ok=True, abs=0
    )


def test_the_truth_scores_one_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, _ = random_case(1)
    results = [
        result_of(a["image_id"], np.array(a["keypoints"]).reshape(17, 3)[:, :2], 1.0)
        for a in content["annotations"]
        if a["num_keypoints"] and not a["iscrowd"]
    ]
    metrics = coco_keypoint_ap(written(content, tmp_path / "annotations.json"), results)
    assert metrics["AP"] == metrics["AR"] == 1
    assert capsys.readouterr().out == ""


def test_annotations_in_short_form(tmp_path: Path) -> None:
    """What pycocotools takes for granted and COCO-format files of other tools leave out changes nothing."""
    content, results = random_case(2)
    for annotation in content["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    full = coco_keypoint_ap(written(content, tmp_path / "full.json"), results)
    for annotation in content["annotations"]:
        del annotation["num_keypoints"], annotation["area"]
        if not annotation["iscrowd"]:
            del annotation["iscrowd"]
    content["annotations"].append({"id": 99, "image_id": 3, "category_id": 1, "iscrowd": 1})
    content["categories"].append({"id": 2, "name": "dog"})
    content["annotations"].append({"id": 100, "image_id": 3, "category_id": 2, "bbox": [0, 0, 5, 5]})
    short = coco_keypoint_ap(written(content, tmp_path / "short.json"), results)
    assert short == pytest.approx(full, nan_ok=True, abs=0)


@pytest.mark.parametrize("absent", [None, [], "key"])
def test_people_without_keypoints_in_every_form(tmp_path: Path, absent: object) -> None:
    content, results = random_case(3)
    people = [a for a in content["annotations"] if not a["num_keypoints"] and not a["iscrowd"]]
    assert people
    full = coco_keypoint_ap(written(content, tmp_path / "full.json"), results)
    for annotation in people:
        annotation["keypoints"] = absent
        if absent == "key":
            del annotation["keypoints"]
    content["annotations"].append({"id": 99, "image_id": 3, "category_id": 1, "keypoints": absent})
    if absent == "key":
        del content["annotations"][-1]["keypoints"]
    short = coco_keypoint_ap(written(content, tmp_path / "short.json"), results)
    assert short == pytest.approx(full, nan_ok=True, abs=0)


def test_categories_with_the_same_joints_count_as_one(tmp_path: Path) -> None:
    content, results = random_case(2)
    full = coco_keypoint_ap(written(content, tmp_path / "full.json"), results)
    player = content["categories"][0] | {"name": "player"}
    content["categories"] = [player, player | {"id": 2, "name": "goalkeeper"}]
    for annotation in content["annotations"][::2]:
        annotation["category_id"] = 2
    file = written(content, tmp_path / "two.json")
    assert coco_keypoint_ap(file, results) == pytest.approx(full, nan_ok=True, abs=0)
    with pytest.raises(InputError, match="at least one result of category 2"):
        coco_keypoint_ap(file, results, category="goalkeeper")


def test_each_result_has_its_person_s_category() -> None:
    points = np.arange(3 * 17 * 2, dtype=float).reshape(3, 17, 2)
    given = (points, np.ones((3, 17)), [1, 1, 2], np.ones(3), np.full(3, 1e-6))
    results = coco_results(*given, category_id=[5, 7, 5])
    assert [(result["image_id"], result["category_id"]) for result in results] == [(1, 5), (1, 7), (2, 5)]
    assert {result["category_id"] for result in coco_results(*given, category_id=7)} == {7}
    with pytest.raises(InputError, match="category_id: expected 3 ids, got 2"):
        coco_results(*given, category_id=[5, 7])


def test_other_joints_need_sigmas(tmp_path: Path) -> None:
    joints = {"keypoints": ["nose", "left_hand", "right_hand"], "sigmas": [0.05, 0.1, 0.1]}
    person = {
        "id": 5, "image_id": 1, "category_id": 1, "keypoints": [10, 10, 2, 30, 10, 2, 30, 40, 1],
        "bbox": [10, 10, 20, 30],
    }  # fmt: skip
    content = {"images": [{"id": 1}], "categories": [{"id": 1, **joints}], "annotations": [person]}
    results = [result_of(1, np.array([[10, 10], [30, 10], [30, 44.0]]), 0.5)]
    file = written(content, tmp_path / "annotations.json")
    # OKS (2 + exp(-16 / (0.04 * 600 * 2))) / 3 = 0.905: right at nine of the ten thresholds
    assert coco_keypoint_ap(file, results)["AP"] == pytest.approx(0.9)
    told = JointSet(("nose", "left_hand", "right_hand"), (0, 2, 1), (0.05, 0.1, 0.3))
    assert coco_keypoint_ap(file, results, joints=told)["AP"] == pytest.approx(1.0)
    del content["categories"][0]["sigmas"]
    written(content, file)
    with pytest.raises(InputError, match=r"categories\[0\]\.sigmas: .*the 3 joints' OKS constants"):
        coco_keypoint_ap(file, results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results[0].update(image_id=77), r"results\[0\]\.image_id: .*got 77"),
        (lambda results: results[1]["keypoints"].pop(), r"results\[1\]\.keypoints: expected a list of 51"),
        (lambda results: results[0].update(score=math.nan), r"results\[0\]\.score: expected a finite number"),
        (lambda results: results[0].pop("score"), r"results\[0\]\.score: .*no such key"),
        (lambda results: results.clear(), "results: expected at least one result"),
    ],
)
def test_bad_results_are_named(change: Callable[[list[Any]], object], message: str, tmp_path: Path) -> None:
    content, results = random_case(0)
    change(results)
    with pytest.raises(InputError, match=message):
        coco_keypoint_ap(written(content, tmp_path / "annotations.json"), results)


def test_numbers_of_numpy_are_numbers_and_ids_are_of_one_type(tmp_path: Path) -> None:
    content, results = random_case(0)
    file = written(content, tmp_path / "annotations.json")
    expected = coco_keypoint_ap(file, results)
    numpy = [
        {**one, "keypoints": list(np.array(one["keypoints"])), "score": np.float32(one["score"])}
        for one in results
    ]
    assert coco_keypoint_ap(file, numpy)["AP"] == pytest.approx(expected["AP"])
    content["images"][0]["id"] = "a"
    with pytest.raises(InputError, match="images: id: expected ids of one type, got int and str"):
        coco_keypoint_ap(written(content, file), results)


def test_a_missing_pycocotools_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, results = random_case(0)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(InputError, match="pip install pycocotools"):
        coco_keypoint_ap(written(content, tmp_path / "annotations.json"), results)


def test_real_annotations(shared_data: Path) -> None:
    """Disturbed annotations of real pictures, among them small people, crowds and people without keypoints."""
    rng = np.random.default_rng(0)
    for file in (
        shared_data / "formats/coco/test_coco.json",
        shared_data / "coco_mini/annotations/person_keypoints_train2017.json",
    ):
        content = json.loads(file.read_text())
        results = []
        for annotation in content["annotations"]:
            points = np.array(annotation["keypoints"], float).reshape(17, 3)[:, :2]
            spread = max(annotation["bbox"][2:]) * rng.choice([0.01, 0.03, 0.1])
            found = points + rng.normal(0, spread, points.shape)
            results.append(result_of(annotation["image_id"], found, float(rng.random())))
        expected = plain_ap(content, results, SIGMAS)
        assert coco_keypoint_ap(file, results) == pytest.approx(expected, nan_ok=True, abs=1e-9)
        assert 0.1 < expected["AP"] < 0.9
