from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cdkd_ext.data import EvaluationSet, Person
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import (
    coco_keypoint_ap,
    coco_results,
    describe,
    measure,
    object_keypoint_similarity,
    pckh,
    submission,
    table,
)
from cdkd_ext.inference import Predictions
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS, JointSet
from cdkd_ext.models import ModelSpec

# heatmaps: joint scores above 0.2 count
SPEC = ModelSpec(name="any", input_size=(64, 48), num_joints=17, head="heatmap")


def people(joints: JointSet, count: int = 6, seed: int = 0) -> list[Person]:
    """People two to a picture; person 2 has no head length."""
    rng = np.random.default_rng(seed)
    return [
        Person(
            image_path=Path(f"{i // 2}.jpg"),
            image_id=i // 2,
            annotation_id=i,
            box=np.array([40 * i, 10, 30, 60], np.float32),
            keypoints=rng.uniform(0, 60, (len(joints), 2)).astype(np.float32),
            annotated=(rng.random(len(joints)) < 0.8).astype(np.float32),
            area=1800.0,
            head_size=math.nan if i == 2 else 8.0 + i,
            score=0.5 + i / 20,
        )
        for i in range(count)
    ]


def predictions(persons: list[Person], noise: float, seed: int = 1) -> Predictions:
    rng = np.random.default_rng(seed)
    points = np.stack([person.keypoints for person in persons])
    scores = rng.random(points.shape[:2])
    return Predictions(
        torch.as_tensor(points + rng.normal(0, noise, points.shape)).float(),
        torch.as_tensor(scores).float(),
        torch.arange(len(persons)),
    )


@pytest.fixture
def coco_file(tmp_path: Path) -> Path:
    annotations = [
        {
            "id": person.annotation_id,
            "image_id": person.image_id,
            "category_id": 3,
            "keypoints": np.column_stack([person.keypoints, 2 * person.annotated]).ravel().tolist(),
            "bbox": person.box.tolist(),
            "area": person.area,
        }
        for person in people(COCO_JOINTS)
    ]
    content = {
        "images": [{"id": i} for i in range(3)],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "person", **COCO_JOINTS.to_category()}],
    }
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    return file


def test_pckh_at_both_thresholds_names_its_sources() -> None:
    persons = people(MPII_JOINTS)
    made = predictions(persons, 3.0)
    truth = EvaluationSet(persons, MPII_JOINTS, "pckh", Path("valid.json"), "ground truth", "some heads")
    metrics = measure(truth, made, SPEC)
    targets = np.stack([person.keypoints for person in persons])
    annotated = np.stack([person.annotated for person in persons])
    heads = [person.head_size for person in persons]
    assert metrics["pckh"] == pckh(made.keypoints, targets, annotated, heads).mean
    assert metrics["pckh_0.1"] == pckh(made.keypoints, targets, annotated, heads, 0.1).mean
    assert 0 < metrics["pckh_0.1"] < metrics["pckh"] < 100
    assert (metrics["people"], metrics["people_without_head_size"]) == (5, 1)
    assert describe(metrics) == (
        f"PCKh@0.5 {metrics['pckh']:.2f}, 5 people (1 without a head length left out); "
        "head length: some heads; boxes: ground truth"
    )
    lines = table(metrics).splitlines()
    names = [line.split()[0] for line in lines[:-1]]
    assert names == [
        "head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "mean", "mean@0.1",
    ]  # fmt: skip
    assert lines[0].split()[1] == f"{metrics['pckh_per_joint']['head']:.2f}"
    assert lines[-1] == describe(metrics)
    for flips, words in ((True, "with"), (False, "without")):
        assert table(metrics | {"flip_test": flips}).endswith(f"{describe(metrics)}; {words} the flip test")


def test_ap_of_the_submission_names_its_boxes(coco_file: Path) -> None:
    persons = people(COCO_JOINTS)
    made = predictions(persons, 1.5)
    truth = EvaluationSet(persons, COCO_JOINTS, "AP", coco_file, "detector's, boxes.json", padding=1.2)
    metrics = measure(truth, made, SPEC)
    # the regions are 60 x 45 pixels at the crop's aspect ratio, times the padding
    expected = coco_results(
        made.keypoints,
        made.scores,
        [0, 0, 1, 1, 2, 2],
        [person.score for person in persons],
        [60 * 45 * 1.2**2] * 6,
        category_id=3,
    )
    assert submission(truth, made, SPEC) == expected
    assert expected[0]["category_id"] == 3
    ap = coco_keypoint_ap(coco_file, expected)
    assert {name: metrics[name] for name in ap} == pytest.approx(ap, nan_ok=True, abs=0)
    assert 0 < metrics["AP"] < 1 and metrics["people"] == 6
    line = describe(metrics)
    assert line.startswith(f"AP {100 * metrics['AP']:.1f}  AP50 ")
    assert line.endswith("(percent), 6 people; boxes: detector's, boxes.json")
    assert table(metrics) == line


def test_suppression_goes_by_the_areas_of_the_crops(coco_file: Path) -> None:
    """Two poses so far apart that they are one person in a crop of 60 x 45 x 1.25^2 pixels, and two in the box."""
    persons = people(COCO_JOINTS)[:2]
    points = torch.zeros(2, 17, 2)
    crop, box = 60 * 45 * 1.25**2, 30 * 60

    def similarity(area: float) -> float:
        made = object_keypoint_similarity(points, [area] * 2, COCO_JOINTS.sigmas)
        return float(made[0, 1])

    while similarity(box) > 0.9:
        points[1] += 0.05
    assert similarity(box) < 0.9 < similarity(crop)
    made = Predictions(points, torch.ones(2, 17), torch.arange(2))
    truth = EvaluationSet(persons, COCO_JOINTS, "AP", coco_file, "ground truth")
    assert len(submission(truth, made, SPEC)) == 1


def test_the_score_threshold_is_the_head_s(coco_file: Path) -> None:
    persons = people(COCO_JOINTS)
    made = predictions(persons, 1.5)
    truth = EvaluationSet(persons, COCO_JOINTS, "AP", coco_file, "ground truth")
    heatmap, simcc = (submission(truth, made, replace(SPEC, head=head)) for head in ("heatmap", "simcc"))
    assert [result["score"] for result in heatmap] != [result["score"] for result in simcc]


@pytest.mark.parametrize("indices", [[0, 1, 2, 3, 4], [0, 1, 2, 3, 5, 4], [0, 1, 2, 3, 4, 4]])
def test_each_person_is_counted_once(indices: list[int], coco_file: Path) -> None:
    persons = people(COCO_JOINTS)
    made = predictions(persons, 1.0)
    broken = Predictions(made.keypoints[indices], made.scores[indices], torch.tensor(indices))
    for metric in ("pckh", "AP"):
        truth = EvaluationSet(persons, COCO_JOINTS, metric, coco_file, "ground truth")  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"predictions\.indices: expected 0 to 5, each person once"):
            measure(truth, broken, SPEC)


def test_a_submission_of_joints_without_sigmas_leaves_nobody_out(coco_file: Path) -> None:
    persons = people(MPII_JOINTS)
    truth = EvaluationSet(persons, replace(MPII_JOINTS, sigmas=None), "AP", coco_file, "ground truth")
    made = submission(truth, predictions(persons, 1.0), SPEC)
    assert sorted(result["image_id"] for result in made) == sorted(person.image_id for person in persons)


def test_without_a_padding_of_its_own_an_evaluation_takes_the_network_s(coco_file: Path) -> None:
    """The crop's area decides what is suppressed: one pose in crops of 60 x 45 x 1.25^2 pixels, two in smaller ones."""
    persons = people(COCO_JOINTS)[:2]
    points = torch.zeros(2, 17, 2)
    while object_keypoint_similarity(points, [60 * 45 * 0.7**2] * 2, COCO_JOINTS.sigmas)[0, 1] > 0.9:
        points[1] += 0.05
    made = Predictions(points, torch.ones(2, 17), torch.arange(2))
    truth = EvaluationSet(persons, COCO_JOINTS, "AP", coco_file, "ground truth")
    found = {
        (own, network): len(submission(replace(truth, padding=own), made, replace(SPEC, padding=network)))
        for own in (None, 0.7, 1.25)
        for network in (0.7, 1.25)
    }
    assert found == {
        (None, 0.7): 2, (None, 1.25): 1,
        (0.7, 0.7): 2, (0.7, 1.25): 2,
        (1.25, 0.7): 1, (1.25, 1.25): 1,
    }  # fmt: skip
