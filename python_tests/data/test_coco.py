from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdkd_ext.data import DataConfig, keypoint_category_id, load_coco_persons
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, JointSet

Content = dict[str, Any]


def test_people_of_a_file(tiny_data: Any) -> None:
    persons, joints = load_coco_persons(tiny_data.annotations, tiny_data.images)
    assert joints == JointSet(("nose", "left_hand", "right_hand"), (0, 2, 1))
    assert [person.annotation_id for person in persons] == [1, 2]

    first, second = persons
    assert first.image_path == tiny_data.images / "a.png"
    assert (first.image_id, first.image_size, first.area, first.head_size) == (7, (40, 60), 345.5, 8.25)
    assert first.box.tolist() == [10, 5, 30, 20]
    # an occluded joint is annotated
    assert first.annotated.tolist() == [1, 1, 0]
    assert first.keypoints.tolist() == [[11, 6], [20, 12.5], [0, 0]]
    assert {first.box.dtype, first.annotated.dtype, first.keypoints.dtype} == {np.dtype(np.float32)}

    assert (second.image_size, second.area) == (None, 600)
    assert math.isnan(second.head_size)


def test_people_without_labels_on_demand(tiny_data: Any) -> None:
    tiny_data.edit(lambda content: content["annotations"][1].pop("keypoints"))
    persons, _ = load_coco_persons(tiny_data.annotations, tiny_data.images, min_keypoints=0)
    assert [person.annotation_id for person in persons] == [1, 2, 3]
    for person in persons[1:]:
        assert not person.annotated.any() and not person.keypoints.any()
        assert person.keypoints.shape == (3, 2)


def test_minimum_of_joints(tiny_data: Any) -> None:
    persons, _ = load_coco_persons(tiny_data.annotations, tiny_data.images, min_keypoints=3)
    assert [person.annotation_id for person in persons] == [2]
    with pytest.raises(InputError, match=r"annotations\.json: annotations: .*4 or more"):
        load_coco_persons(tiny_data.annotations, tiny_data.images, min_keypoints=4)


def test_given_joints_replace_the_category(tiny_data: Any) -> None:
    given = JointSet(("nose", "left_hand", "right_hand"), (0, 1, 2), (0.1, 0.1, 0.1))
    assert load_coco_persons(tiny_data.annotations, tiny_data.images, joints=given)[1] is given
    tiny_data.edit(lambda content: content["categories"][0].pop("keypoints"))
    assert load_coco_persons(tiny_data.annotations, tiny_data.images, joints=given)[1] is given


def test_given_joints_must_be_the_same(tiny_data: Any) -> None:
    other = JointSet(("nose", "right_hand", "left_hand"), (0, 2, 1))
    with pytest.raises(InputError, match=r"annotations\.json: categories\[0\]\.keypoints"):
        load_coco_persons(tiny_data.annotations, tiny_data.images, joints=other)


def test_category_of_several(tiny_data: Any) -> None:
    def add_dog(content: Content) -> None:
        content["categories"].insert(0, {"id": 18, "name": "dog", "keypoints": ["left_a", "right_a"]})

    tiny_data.edit(add_dog)
    assert len(load_coco_persons(tiny_data.annotations, tiny_data.images)[0]) == 2


def test_pictures_in_subfolders(tiny_data: Any) -> None:
    (tiny_data.images / "deep").mkdir()
    (tiny_data.images / "a.png").rename(tiny_data.images / "deep" / "a.png")
    tiny_data.edit(lambda content: content["images"][0].update(file_name="deep/a.png"))
    persons, _ = load_coco_persons(tiny_data.annotations, tiny_data.images)
    assert persons[0].image_path.is_file()


def test_pictures_without_people_may_be_missing(tiny_data: Any) -> None:
    tiny_data.edit(lambda content: content["images"].append({"id": 1, "file_name": "none.jpg"}))
    assert len(load_coco_persons(tiny_data.annotations, tiny_data.images)[0]) == 2


@pytest.fixture(params=["absent", "null", "empty"])
def without_keypoints(request: pytest.FixtureRequest) -> Callable[[Content], None]:
    """An edit that takes the second person's keypoints away, in one of the ways in which files say so."""

    def edit(content: Content) -> None:
        person = content["annotations"][1]
        del person["keypoints"]
        if request.param != "absent":
            person["keypoints"] = None if request.param == "null" else []

    return edit


def test_absent_keypoints_mean_the_same_in_every_form(
    tiny_data: Any, without_keypoints: Callable[[Content], None]
) -> None:
    tiny_data.edit(without_keypoints)
    files = (tiny_data.annotations, tiny_data.images)
    persons, _ = load_coco_persons(*files, min_keypoints=0)
    assert [(person.annotation_id, person.annotated.sum()) for person in persons] == [(1, 2), (2, 0), (3, 0)]
    labelled, _ = load_coco_persons(*files, require_keypoints=False)
    assert [person.annotation_id for person in labelled] == [1]
    with pytest.raises(InputError, match=r"annotations\[1\]\.keypoints: expected a list of 9 numbers, or"):
        load_coco_persons(*files)


def test_validation_leaves_people_without_keypoints_out(
    tiny_data: Any, without_keypoints: Callable[[Content], None]
) -> None:
    tiny_data.edit(without_keypoints)
    config = DataConfig(root=str(tiny_data.folder), val="annotations.json", val_images="images")
    assert [person.annotation_id for person in load_validation(config).persons] == [1]


@pytest.mark.parametrize("box", [[1, 2, 3, 0], [1, 2, 0, 3], [1, 2, -3, 4], [], None, "absent"])
def test_a_person_with_neither_joints_nor_box_is_left_out_and_counted(
    tiny_data: Any, caplog: pytest.LogCaptureFixture, box: object
) -> None:
    def edit(content: Content) -> None:
        content["annotations"][2]["bbox"] = box
        if box == "absent":
            del content["annotations"][2]["bbox"]

    tiny_data.edit(edit)
    persons, _ = load_coco_persons(tiny_data.annotations, tiny_data.images, min_keypoints=0)
    assert [person.annotation_id for person in persons] == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tiny_data.annotations}: left out people without annotated joints whose box has no width or height: "
        "1 (annotations[2])"
    ]


def test_a_person_with_joints_and_a_broken_box_is_an_error(tiny_data: Any) -> None:
    tiny_data.edit(lambda content: content["annotations"][0].update(bbox=[1, 2, 3, 0]))
    with pytest.raises(InputError, match=r"annotations\[0\]\.bbox: expected a positive width and height"):
        load_coco_persons(tiny_data.annotations, tiny_data.images, min_keypoints=0)


def _two_categories(content: Content) -> None:
    """A player and a goalkeeper with the same joints, one person of each."""
    player = content["categories"][0] | {"name": "player"}
    content["categories"] = [player, player | {"id": 2, "name": "goalkeeper"}, {"id": 3, "name": "ball"}]
    content["annotations"][1]["category_id"] = 2


@pytest.mark.parametrize(
    ("category", "expected"), [(None, [1, 2]), ("player", [1]), ("goalkeeper", [2]), (2, [2]), ("2", [2])]
)
def test_categories_with_the_same_joints(
    tiny_data: Any, category: int | str | None, expected: list[int]
) -> None:
    tiny_data.edit(_two_categories)
    persons, _ = load_coco_persons(tiny_data.annotations, tiny_data.images, category=category)
    assert [person.annotation_id for person in persons] == expected
    assert [person.category_id for person in persons] == expected
    assert keypoint_category_id(tiny_data.annotations, category) == (2 if expected == [2] else 1)


def test_categories_with_different_joints_are_listed(tiny_data: Any) -> None:
    def edit(content: Content) -> None:
        _two_categories(content)
        content["categories"][1] = content["categories"][1] | {"keypoints": ["left_a", "right_a"]}

    tiny_data.edit(edit)
    message = (
        r"categories: expected .* a category to take, got 3 of them, 'player' \(id 1, 3 keypoints\), "
        r"'goalkeeper' \(id 2, 2 keypoints\), 'ball' \(id 3, no keypoints\)"
    )
    with pytest.raises(InputError, match=message):
        load_coco_persons(tiny_data.annotations, tiny_data.images)
    assert len(load_coco_persons(tiny_data.annotations, tiny_data.images, category="player")[0]) == 1
    with pytest.raises(InputError, match=r"category: expected .*got 'judge' .*'goalkeeper' \(id 2"):
        load_coco_persons(tiny_data.annotations, tiny_data.images, category="judge")


def test_an_annotation_without_category_is_a_person_s(tiny_data: Any) -> None:
    tiny_data.edit(lambda content: content["annotations"][1].update(category_id=None))
    assert len(load_coco_persons(tiny_data.annotations, tiny_data.images)[0]) == 2


def _set(*path: int | str) -> Callable[[Content], None]:
    """An edit that puts the last of `path` at the place that the others name."""
    *place, key, value = path

    def edit(content: Any) -> None:
        for step in place:
            content = content[step]
        content[key] = value

    return edit


def _delete(*path: int | str) -> Callable[[Content], None]:
    *place, key = path

    def edit(content: Any) -> None:
        for step in place:
            content = content[step]
        del content[key]

    return edit


FIRST = ("annotations", 0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_delete("images"), "images: expected a list, got no such key"),
        (_delete("annotations"), "annotations: expected a list, got no such key"),
        (_delete("categories"), "categories: expected a list, got no such key"),
        (_set("images", 3), "images: expected a list"),
        (_set("images", 0, "x"), r"images\[0\]: expected an object"),
        (_delete("images", 0, "id"), r"images\[0\]\.id"),
        (_delete("images", 0, "file_name"), r"images\[0\]\.file_name: .*no such key"),
        (_set("images", 0, "file_name", ""), r"images\[0\]\.file_name"),
        (_set("images", 0, "file_name", 5), r"images\[0\]\.file_name"),
        (_set("images", 0, "height", "tall"), r"images\[0\]\.height"),
        (_set("images", 1, "id", 7), r"images\[1\]\.id: expected a unique id"),
        (_set("images", 0, "file_name", "none.png"), r"file_name of image 7: .*none\.png"),
        (_set("images", 0, "file_name", "no/a.png"), "no: expected the folder of the images"),
        (_set("categories", []), "categories: .*0 of them"),
        (_delete("categories", 0, "id"), r"categories\[0\]\.id"),
        (_delete("categories", 0, "keypoints"), r"categories\[0\]\.keypoints"),
        (_set("categories", 0, "keypoints", ["nose"]), r"categories\[0\]"),
        (_set("annotations", 0, None), r"annotations\[0\]: expected an object"),
        (_set("annotations", []), "annotations: expected at least one person"),
        (_delete(*FIRST, "keypoints"), r"annotations\[0\]\.keypoints: .*no such key"),
        (_set(*FIRST, "keypoints", [1, 2, 2]), r"annotations\[0\]\.keypoints: expected a list of 9 .*got 3"),
        (_set(*FIRST, "keypoints", "9"), r"annotations\[0\]\.keypoints"),
        (_set(*FIRST, "keypoints", 4, float("nan")), r"annotations\[0\]\.keypoints: .*finite.*nan"),
        (_set(*FIRST, "keypoints", 4, float("inf")), r"annotations\[0\]\.keypoints: .*finite.*inf"),
        (_set(*FIRST, "keypoints", 4, 10**400), r"annotations\[0\]\.keypoints: .*finite"),
        (_set(*FIRST, "keypoints", 4, "7"), r"annotations\[0\]\.keypoints: .*finite.*'7'"),
        (_set(*FIRST, "keypoints", 5, 3), r"annotations\[0\]\.keypoints: .*visibility 3"),
        (_delete(*FIRST, "image_id"), r"annotations\[0\]\.image_id"),
        (_set(*FIRST, "image_id", 8), r"annotations\[0\]\.image_id: .*got 8"),
        (_set(*FIRST, "image_id", [8]), r"annotations\[0\]\.image_id"),
        (_delete(*FIRST, "id"), r"annotations\[0\]\.id"),
        (_delete(*FIRST, "bbox"), r"annotations\[0\]\.bbox"),
        (_set(*FIRST, "bbox", [1, 2, 3]), r"annotations\[0\]\.bbox: expected a list of 4"),
        (_set(*FIRST, "bbox", [1, 2, 0, 5]), r"annotations\[0\]\.bbox: expected a positive width and height"),
        (
            _set(*FIRST, "bbox", [1, 2, 5, -5]),
            r"annotations\[0\]\.bbox: expected a positive width and height",
        ),
        (_set(*FIRST, "bbox", [1, 2, 1e-60, 5]), r"annotations\[0\]\.bbox: expected a positive"),
        (_set(*FIRST, "bbox", 3, float("nan")), r"annotations\[0\]\.bbox: .*finite"),
        (_set(*FIRST, "head_size", "8"), r"annotations\[0\]\.head_size"),
        (_set(*FIRST, "head_size", float("inf")), r"annotations\[0\]\.head_size"),
        (_set(*FIRST, "iscrowd", "0"), r"annotations\[0\]\.iscrowd: expected 0, 1, false or true, got '0'"),
        (_set(*FIRST, "iscrowd", [1]), r"annotations\[0\]\.iscrowd"),
        (_set(*FIRST, "category_id", 1.5), r"annotations\[0\]\.category_id"),
        (_set("images", 0, "width", "wide"), r"images\[0\]\.width"),
        (_set(*FIRST, "area", True), r"annotations\[0\]\.area"),
    ],
)
def test_bad_field_names_file_and_field(
    tiny_data: Any, edit: Callable[[Content], None], message: str
) -> None:
    tiny_data.edit(edit)
    with pytest.raises(InputError, match=message) as caught:
        load_coco_persons(tiny_data.annotations, tiny_data.images)
    assert str(tiny_data.annotations) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b'{"images": [', "malformed JSON"),
        (b"\xff\xfe\x00", "malformed JSON"),
        (b"[" * 100_000, "malformed JSON"),
        (b"[]", "expected an object, got list"),
    ],
)
def test_broken_file(tiny_data: Any, content: bytes, message: str) -> None:
    tiny_data.annotations.write_bytes(content)
    with pytest.raises(InputError, match=rf"annotations\.json: .*{message}"):
        load_coco_persons(tiny_data.annotations, tiny_data.images)


def test_missing_file_and_folders(tiny_data: Any) -> None:
    with pytest.raises(InputError, match=r"none\.json: .*No such file"):
        load_coco_persons(tiny_data.folder / "none.json", tiny_data.images)
    with pytest.raises(InputError, match=r"Is a directory"):
        load_coco_persons(tiny_data.images, tiny_data.images)
    shutil.rmtree(tiny_data.images)
    with pytest.raises(InputError, match=r"images: expected the folder of the images of .*annotations\.json"):
        load_coco_persons(tiny_data.annotations, tiny_data.images)


def test_one_listing_per_folder(tiny_data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(path: Path, **_: object) -> None:
        raise AssertionError(f"asked for {path} alone")

    monkeypatch.setattr(Path, "stat", stat)
    assert len(load_coco_persons(tiny_data.annotations, tiny_data.images)[0]) == 2


def test_real_coco(shared_data: Path) -> None:
    folder = shared_data / "coco_mini"
    file = folder / "annotations" / "person_keypoints_train2017.json"
    persons, joints = load_coco_persons(file, folder / "train2017")
    assert joints == COCO_JOINTS
    annotations = {entry["id"]: entry for entry in json.loads(file.read_text())["annotations"]}
    kept = [entry for entry in annotations.values() if entry["num_keypoints"] > 0 and not entry["iscrowd"]]
    assert len(persons) == len(kept) == 86
    for person in persons:
        entry = annotations[person.annotation_id]
        assert person.annotated.sum() == entry["num_keypoints"]
        np.testing.assert_allclose(person.box, entry["bbox"], rtol=1e-6)
        assert (person.area, person.image_id) == (entry["area"], entry["image_id"])


def test_real_lsp(shared_data: Path) -> None:
    folder = shared_data / "lspet" / "val"
    persons, joints = load_coco_persons(folder / "annotations.json", folder / "images")
    assert len(persons) == 910 and len(joints) == 14
    assert joints.flip_permutation == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13)
    measured = [person for person in persons if not math.isnan(person.head_size)]
    assert len(measured) == 776
    neck, head = joints.names.index("neck"), joints.names.index("head_top")
    for person in measured:
        assert math.dist(person.keypoints[neck], person.keypoints[head]) == pytest.approx(
            person.head_size, abs=0.02
        )
