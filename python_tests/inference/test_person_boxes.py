"""Where the people of a frame are said to be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.inference.person_boxes import find_people
from cdkd_ext.inference.sources import SourceFrame


def frame(name="a/000007.jpg"):
    return SourceFrame(name, 0, Path(name), 0.0, np.zeros((40, 60, 3), np.uint8))


def test_whole_images_are_one_person_each():
    assert find_people("whole")(frame()).tolist() == [[0, 0, 60, 40, 1]]


def test_boxes_come_by_the_images_names(tmp_path):
    rows = [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.1},
        {"image_id": 8, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.8},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    people = find_people(tmp_path / "boxes.json")
    assert people(frame()).tolist() == [[1, 2, 3, 4, 0.9]]
    assert people(frame("a/000009.jpg")).shape == (0, 5)
    assert people.left == ["8"]
    with pytest.raises(
        InputError, match=r"boxes.json: image 7: expected one image's name, got the name of a/0000"
    ):
        people(frame("b/7.png"))


@pytest.mark.parametrize("heading", ["", "x,y,w,h\n", "X,Y,W,H\n", "x,y,width,height\n", "\n"])
def test_boxes_without_names_are_in_every_frame(tmp_path, heading):
    (tmp_path / "boxes.csv").write_text(heading + "1,2,3,4\n 5, 6, 7, 8.5\n \n")
    people = find_people(tmp_path / "boxes.csv")
    for name in ("a.jpg", "b.jpg"):
        assert people(frame(name)).tolist() == [[1, 2, 3, 4, 1], [5, 6, 7, 8.5, 1]]


def test_a_score_needs_a_heading_for_five_numbers_might_begin_with_a_name(tmp_path):
    (tmp_path / "boxes.csv").write_text("x,y,w,h,score\n1,2,3,4,0.5\n1,2,3,4,0.2\n")
    assert find_people(tmp_path / "boxes.csv")(frame()).tolist() == [[1, 2, 3, 4, 0.5]]
    (tmp_path / "named.csv").write_text("7.jpg,2,3,4,5\n")
    assert find_people(tmp_path / "named.csv")(frame("7.jpg")).tolist() == [[2, 3, 4, 5, 1]]


@pytest.mark.parametrize(
    ("boxes", "detector", "message"),
    [
        (None, None, "boxes and detector: expected one of them: .*, got neither"),
        (None, None, r"ONNX file \(--detector FILE\), or a file of boxes .* \(--boxes FILE\)"),
        ("whole", "detector.onnx", "boxes and detector: expected one of them: .*, got both"),
        ("nowhere.csv", None, "nowhere.csv: expected a readable file of boxes"),
        (None, "nowhere.onnx", "nowhere.onnx: expected an ONNX file, got no such file"),
    ],
)
def test_mistakes_are_named(boxes, detector, message):
    with pytest.raises(InputError, match=message):
        find_people(boxes, detector)


def test_an_empty_box_is_named(tmp_path):
    (tmp_path / "boxes.csv").write_text("1,2,3,4\n1,2,0,4\n")
    with pytest.raises(InputError, match=r"boxes.csv: box 2: expected finite x,y,w,h with positive w and h"):
        find_people(tmp_path / "boxes.csv")
