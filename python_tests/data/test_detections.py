from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdkd_ext.data import PoseDataset, load_coco_detections, load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS


@pytest.fixture
def boxes(tiny_data: Any) -> Path:
    content = [
        {"image_id": 9, "category_id": 1, "bbox": [1.5, 2, 20, 30], "score": 0.25},
        {"image_id": 7, "category_id": 1, "bbox": [3, 4, 10, 20], "score": 0.999},
        {"image_id": 7, "category_id": 18, "bbox": [3, 4, 10, 20], "score": 0.9},
        {"image_id": 7, "category_id": 1, "bbox": [3, 4, 0, 20], "score": 0.9},
    ]
    file = tiny_data.folder / "boxes.json"
    file.write_text(json.dumps(content))
    return file


def test_boxes_of_a_file(tiny_data: Any, boxes: Path) -> None:
    persons, joints = load_coco_detections(tiny_data.annotations, tiny_data.images, boxes)
    assert joints.names == ("nose", "left_hand", "right_hand")
    first, second = persons
    assert first.box.tolist() == [1.5, 2, 20, 30] and first.score == 0.25 and first.image_id == 9
    assert first.image_path == tiny_data.images / "b.jpg" and first.image_size is None
    assert second.score == 0.999 and second.image_size == (40, 60)
    assert [person.annotation_id for person in persons] == [0, 1]
    for person in persons:
        assert not person.annotated.any() and not person.keypoints.any() and math.isnan(person.head_size)
    sample = PoseDataset(persons, joints, size=(32, 32))[1]
    assert sample["image"].any() and sample["labelled"] == 0


def test_low_scores_can_be_left_out(tiny_data: Any, boxes: Path) -> None:
    arguments = (tiny_data.annotations, tiny_data.images, boxes)
    assert [person.score for person in load_coco_detections(*arguments, min_score=0.5)[0]] == [0.999]
    assert len(load_coco_detections(*arguments, min_score=0.25)[0]) == 2
    with pytest.raises(InputError, match=r"boxes\.json: expected at least one box of category 1"):
        load_coco_detections(*arguments, min_score=1.5)


def test_annotations_are_not_read(tiny_data: Any, boxes: Path) -> None:
    tiny_data.edit(lambda content: content.pop("annotations"))
    assert len(load_coco_detections(tiny_data.annotations, tiny_data.images, boxes)[0]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content[0].update(image_id=5),
            r"\[0\]\.image_id: expected one of the images of .* got 5",
        ),
        (lambda content: content[0].pop("score"), r"\[0\]\.score: .*no such key"),
        (lambda content: content[0].update(score="high"), r"\[0\]\.score"),
        (lambda content: content[0].update(bbox=[1, 2, 3]), r"\[0\]\.bbox: expected a list of 4"),
        (lambda content: content[0].pop("category_id"), r"\[0\]\.category_id"),
        (lambda content: content.insert(0, []), r"\[0\]: expected an object"),
        (lambda content: content.clear(), "expected at least one box"),
    ],
)
def test_bad_fields_are_named(
    tiny_data: Any, boxes: Path, change: Callable[[list[Any]], object], message: str
) -> None:
    content = json.loads(boxes.read_text())
    change(content)
    boxes.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        load_coco_detections(tiny_data.annotations, tiny_data.images, boxes)
    assert "boxes.json" in str(caught.value)


def test_an_annotation_file_is_no_box_file(tiny_data: Any) -> None:
    with pytest.raises(InputError, match="expected a list of objects, got dict"):
        load_coco_detections(tiny_data.annotations, tiny_data.images, tiny_data.annotations)


def hrnet_clean_box(box: list[float], width: int, height: int) -> list[float]:
    x, y, w, h = box
    x1, y1 = max(0, x), max(0, y)
    x2 = min(width - 1, x1 + max(0, w - 1))
    y2 = min(height - 1, y1 + max(0, h - 1))
    return [x1, y1, x2 - x1, y2 - y1]


def test_clipped_boxes(tiny_data: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        template = content["annotations"][1]
        boxes = [[-5, -4, 30, 20], [50, 30, 30, 30], [70, 5, 10, 10], [10, 5, 1, 9], [1, 2, 3, 4]]
        content["annotations"] = [
            {**template, "id": i, "image_id": 7, "bbox": box, "area": float(i != 4)}
            for i, box in enumerate(boxes)
        ]

    tiny_data.edit(change)
    persons, _ = load_coco_persons(tiny_data.annotations, tiny_data.images, clip_boxes=True)
    # outside of the picture, one pixel wide, without area: nothing is left of them
    assert [person.annotation_id for person in persons] == [0, 1]
    assert persons[0].box.tolist() == hrnet_clean_box([-5, -4, 30, 20], 60, 40) == [0, 0, 29, 19]
    assert persons[1].box.tolist() == hrnet_clean_box([50, 30, 30, 30], 60, 40) == [50, 30, 9, 9]
    assert len(load_coco_persons(tiny_data.annotations, tiny_data.images)[0]) == 5


def test_clipping_without_a_known_size_cuts_the_near_sides_only(tiny_data: Any) -> None:
    tiny_data.edit(lambda content: content["annotations"][1].update(bbox=[-5, 5, 300, 20]))
    persons, _ = load_coco_persons(tiny_data.annotations, tiny_data.images, clip_boxes=True)
    assert persons[1].box.tolist() == [0, 5, 299, 19]


def test_real_boxes(shared_data: Path) -> None:
    folder = shared_data / "formats" / "coco"
    file = folder / "test_coco_det_AP_H_56.json"
    content = json.loads(file.read_text())
    persons, joints = load_coco_detections(folder / "test_coco.json", folder, file)
    assert joints == COCO_JOINTS and len(persons) == len(content) == 118
    for person, entry in zip(persons, content, strict=True):
        assert (person.image_id, person.score) == (entry["image_id"], entry["score"])
        np.testing.assert_allclose(person.box, entry["bbox"], rtol=1e-6)
    annotated = load_coco_persons(folder / "test_coco.json", folder, clip_boxes=True)[0]
    entries = {
        entry["id"]: entry for entry in json.loads((folder / "test_coco.json").read_text())["annotations"]
    }
    for person in annotated:
        height, width = person.image_size
        clean = hrnet_clean_box(entries[person.annotation_id]["bbox"], width, height)
        np.testing.assert_allclose(person.box, clean, rtol=1e-5)
