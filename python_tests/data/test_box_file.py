"""Boxes from files, and the images that they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdkd_ext.data.box_file import BoxesByName, match_boxes, read_boxes
from cdkd_ext.errors import InputError

BOX = (1.0, 2.0, 30.0, 40.0)
IMAGES = [
    Path("walk/0001.jpg"),
    Path("run/0001.jpg"),
    Path("run/000000000139.jpg"),
    Path("v/clip.mp4/000005.jpg"),
]


def write(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_results_as_coco_has_them(tmp_path: Path) -> None:
    rows = [
        {"image_id": 139, "category_id": 1, "bbox": list(BOX), "score": 0.5},
        {"image_id": 139, "category_id": 18, "bbox": list(BOX), "score": 0.9},
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 0, 4], "score": 0.9},
        {"file_name": "walk/0001.jpg", "bbox": list(BOX)},
        {"image_id": 139, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.25},
    ]
    path = write(tmp_path / "boxes.json", rows)
    assert read_boxes(path) == {139: [(*BOX, 0.5), (5, 6, 7, 8, 0.25)], "walk/0001.jpg": [(*BOX, 1.0)]}
    assert read_boxes(path, category="18")[139] == [(*BOX, 0.9)]


@pytest.mark.parametrize("heading", ["", "image,x,y,w,h,score\n", "file, x, y, width, height\n"])
def test_lines(tmp_path: Path, heading: str) -> None:
    lines = (
        heading
        + "a.jpg,1,2,30,40\n\n"
        + '"b, c.jpg", 1, 2.5, 3e1, 40, 0.5\n'
        + "a.jpg,1,2,0,4\na.jpg,5,6,7,8\n"
    )
    assert read_boxes(write(tmp_path / "boxes.csv", lines)) == {
        "a.jpg": [(*BOX, 1.0), (5, 6, 7, 8, 1.0)],
        "b, c.jpg": [(1, 2.5, 30, 40, 0.5)],
    }


def test_lines_of_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_bytes(b"\xef\xbb\xbfa.jpg,1,2,30,40\r\n")
    assert read_boxes(tmp_path / "boxes.csv") == {"a.jpg": [(*BOX, 1.0)]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", "a.jpg,1,2,1e300,4\n", r"b\.csv: line 1: expected .* finite numbers"),
        ("none.csv", None, r"none\.csv: expected a readable file of boxes, got No such file"),
        ("b.csv", "", r"b\.csv: expected at least one box, got none"),
        ("b.csv", "a.jpg,1,2,3\n", r"b\.csv: line 1: expected image,x,y,w,h or image,x,y,w,h,score, got 4 values"),
        ("b.csv", "a.jpg,1,2,3,4\na.jpg,1,2,x,4\n", r"b\.csv: line 2: expected .* finite numbers, got a\.jpg,1,2,x,4"),
        ("b.csv", "a.jpg,1,2,nan,4\n", r"b\.csv: line 1: expected .* finite numbers"),
        ("b.csv", "a.jpg,9,9,3,-4\n", r"b\.csv: image 'a\.jpg': expected a width and a height of at least 0: .*got the box"),
        ("b.json", [{"image_id": 1, "bbox": [9, 9, -3, 4]}], r"b\.json: image 1: expected a width and a height of at"),
        ("b.json", {"a": 1}, r"b\.json: expected a list of objects, got dict"),
        ("b.json", [{"image_id": 1, "bbox": [1, 2, 3]}], r"b\.json: \[0\]\.bbox: expected a list of 4 numbers"),
        ("b.json", [{"bbox": [1, 2, 3, 4]}], r"b\.json: \[0\]\.image_id: expected an integer or a string"),
        ("b.json", [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}], r"b\.json: expected at least one box"),
    ],
)  # fmt: skip
def test_files_that_hold_no_boxes(tmp_path: Path, name: str, content, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        write(path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_boxes(path)
    assert "\n" not in str(caught.value)


def test_a_name_of_a_category_is_not_taken_for_an_id(tmp_path: Path) -> None:
    path = write(tmp_path / "boxes.json", [{"image_id": 139, "category_id": 1, "bbox": list(BOX)}])
    with pytest.raises(
        InputError, match=r"category_id: expected the id of the people's category.*got 1 beside person"
    ):
        read_boxes(path, category="person")
    path = write(tmp_path / "boxes.json", [{"image_id": 139, "category_id": "person", "bbox": list(BOX)}])
    assert read_boxes(path, category="person")[139] == [(*BOX, 1.0)]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "boxes.txt"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"boxes\.txt: expected JSON, or lines image,x,y,w,h"):
        read_boxes(path)


@pytest.mark.parametrize(
    ("named", "index"),
    [
        ("walk/0001.jpg", 0),
        ("./run/0001.jpg", 1),
        (139, 2),
        ("000000000139", 2),
        ("000000000139.jpg", 2),
        ("clip.mp4/000005.jpg", 3),
        ("v/clip.mp4/000005.jpg", 3),
    ],
)
def test_names_of_images(named, index: int) -> None:
    boxes = {named: [(*BOX, 1.0)]}
    assert match_boxes(boxes, IMAGES, [], "b.csv") == {IMAGES[index]: [(*BOX, 1.0)]}


def test_the_longest_name_is_an_image_s() -> None:
    boxes = BoxesByName({"1.png": [(*BOX, 1.0)], "a/1.png": [(*BOX, 0.5)]}, "b.csv")
    for name, score in (("mix/a/1.png", 0.5), ("mix/1.png", 1.0)):
        assert boxes(Path(name)) == [(*BOX, score)]
    assert boxes.left == []


def test_a_number_in_lines_is_coco_s_id() -> None:
    boxes = BoxesByName({"139": [(*BOX, 1.0)]}, "b.csv")
    assert boxes(Path("images/000000000139.jpg")) == [(*BOX, 1.0)]


def test_two_names_of_one_image() -> None:
    boxes = {139: [(*BOX, 1.0)], "000000000139.jpg": [(*BOX, 0.5)]}
    assert match_boxes(boxes, IMAGES, [], "b.csv") == {IMAGES[2]: [(*BOX, 1.0), (*BOX, 0.5)]}


def test_names_of_no_or_of_several_images() -> None:
    boxes = {name: [(*BOX, 1.0)] for name in ("x.jpg", 7, "walk/2.jpg", "y.jpg", "walk/0001.jpg")}
    message = r"b\.csv: expected boxes of the images in data\.images, got boxes of 4 .* 'x\.jpg', 7, 'walk/2\.jpg', \.\.\."
    with pytest.raises(InputError, match=message):
        match_boxes(boxes, IMAGES, [], "b.csv")
    with pytest.raises(
        InputError, match=r"b\.csv: image '0001\.jpg': expected one image's name, got the name of 2"
    ):
        match_boxes({"0001.jpg": [(*BOX, 1.0)]}, IMAGES, [], "b.csv")


def test_frames_that_were_not_sampled_are_passed_over() -> None:
    boxes = {name: [(*BOX, 1.0)] for name in ("clip.mp4/000006.jpg", "v/clip.mp4/000005.jpg")}
    found = match_boxes(boxes, IMAGES, [Path("v/clip.mp4")], "b.csv")
    assert list(found) == [IMAGES[3]]
    with pytest.raises(InputError, match="boxes of 1 that are not there"):
        match_boxes({"other.mp4/000006.jpg": [(*BOX, 1.0)]}, IMAGES, [Path("v/clip.mp4")], "b.csv")


def test_names_of_one_image_are_one(tmp_path):
    (tmp_path / "boxes.csv").write_text("./a/0001.jpg,0,0,20,40\na/0001.jpg,40,0,20,40\n")
    boxes = BoxesByName(read_boxes(tmp_path / "boxes.csv"), "boxes.csv")
    assert boxes(Path("a/0001.jpg")) == [(0, 0, 20, 40, 1), (40, 0, 20, 40, 1)]
