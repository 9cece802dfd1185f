from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from cdkd_ext.data import CropRegion, PoseDataset, load_mpii_persons, region_from_box
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS

PEOPLE = 4


def hrnet_crop(entry: dict[str, Any]) -> CropRegion:
    """The region of HRNet's code: centre moved down, scale enlarged, then from 1-based to 0-based."""
    x, y = entry["center"]
    y += 15 * entry["scale"]
    return CropRegion((x - 1, y - 1), (200 * 1.25 * entry["scale"],) * 2)


@pytest.fixture
def mpii(tmp_path: Path) -> Path:
    """A folder as HRNet's code lays it out: images/, annot/valid.json, annot/gt_valid.mat."""
    rng = np.random.default_rng(3)
    (tmp_path / "annot").mkdir()
    (tmp_path / "images").mkdir()
    entries = []
    for i in range(PEOPLE):
        annotated = (rng.random(16) < 0.8).astype(int)
        joints = np.where(annotated[:, None] > 0, rng.uniform(1, 60, (16, 2)).round(2), -1)
        entries.append(
            {
                "image": f"{i // 2}.png",
                "center": [30 + i, 25.0],
                "scale": 0.2 + 0.01 * i,
                "joints": joints.tolist(),
                "joints_vis": annotated.tolist(),
            }
        )
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), rng.integers(0, 256, (50, 60, 3), dtype=np.uint8))
    (tmp_path / "annot/valid.json").write_text(json.dumps(entries))
    write_mat(tmp_path)
    return tmp_path


def write_mat(folder: Path, **changes: Any) -> None:
    entries = json.loads((folder / "annot/valid.json").read_text())
    joints = np.array([entry["joints"] for entry in entries], float)
    missing = 1 - np.array([entry["joints_vis"] for entry in entries])
    corner = np.arange(2 * len(entries), dtype=float).reshape(2, -1)
    content = {
        "pos_gt_src": joints.transpose(1, 2, 0),
        "jnt_missing": missing.T,
        # two corners of a rectangle of 3 x 4, 6 x 8, 9 x 12 ... pixels
        "headboxes_src": np.stack(
            [corner, corner + np.array([[3.0], [4.0]]) * np.arange(1, len(entries) + 1)]
        ),
        "dataset_joints": np.array([[name] for name in MPII_JOINTS.names], object),
    }
    savemat(folder / "annot/gt_valid.mat", {**content, **changes})


def read(folder: Path, **options: Any) -> list[Any]:
    return load_mpii_persons(folder / "annot/valid.json", folder / "images", **options)[0]


def with_heads(folder: Path) -> list[Any]:
    return read(folder, head_boxes=folder / "annot/gt_valid.mat")


def edit(folder: Path, change: Any) -> None:
    file = folder / "annot/valid.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_coordinates_become_zero_based_and_boxes_hrnet_s_crops(mpii: Path) -> None:
    entries = json.loads((mpii / "annot/valid.json").read_text())
    persons, joints = load_mpii_persons(mpii / "annot/valid.json", mpii / "images")
    assert joints is MPII_JOINTS and len(persons) == PEOPLE
    for person, entry in zip(persons, entries, strict=True):
        for j in range(16):
            seen = entry["joints_vis"][j] == 1
            assert person.annotated[j] == seen
            expected = [value - 1 for value in entry["joints"][j]] if seen else [0, 0]
            assert person.keypoints[j].tolist() == pytest.approx(expected, abs=1e-5)
        region, wanted = region_from_box(person.box, (64, 64)), hrnet_crop(entry)
        assert region.center == pytest.approx(wanted.center, abs=1e-4)
        assert region.size == pytest.approx(wanted.size, abs=1e-4)
        assert person.image_path == mpii / "images" / entry["image"] and math.isnan(person.head_size)
    assert [person.annotation_id for person in persons] == list(range(PEOPLE))


def test_head_boxes_give_the_reference_length(mpii: Path) -> None:
    # diagonals of 5, 10, 15 and 20 pixels
    assert [person.head_size for person in with_heads(mpii)] == pytest.approx([3, 6, 9, 12])


def test_the_official_ground_truth_decides_what_is_annotated(mpii: Path) -> None:
    entries = json.loads((mpii / "annot/valid.json").read_text())
    missing = 1 - np.array([entry["joints_vis"] for entry in entries])
    missing[0, 3] = 1 - missing[0, 3]
    joints = np.array([entry["joints"] for entry in entries], float)
    joints[0, 3] = [7, 9]
    write_mat(mpii, jnt_missing=missing.T, pos_gt_src=joints.transpose(1, 2, 0))
    first = with_heads(mpii)[0]
    assert first.annotated[3] == 1 - missing[0, 3] != entries[0]["joints_vis"][3]
    assert first.keypoints[3].tolist() == ([6, 8] if first.annotated[3] else [0, 0])


def test_head_boxes_alone_are_enough(mpii: Path) -> None:
    savemat(
        mpii / "annot/gt_valid.mat", {"headboxes_src": np.stack([np.zeros((2, 4)), np.full((2, 4), 5.0)])}
    )
    assert [person.head_size for person in with_heads(mpii)] == pytest.approx([0.6 * math.sqrt(50)] * 4)


def test_head_sizes_in_the_annotations(mpii: Path) -> None:
    edit(mpii, lambda content: content[1].update(head_size=12.5))
    sizes = [person.head_size for person in read(mpii)]
    assert sizes[1] == 12.5 and all(math.isnan(size) for size in [sizes[0], *sizes[2:]])


def test_people_without_joints(mpii: Path) -> None:
    def change(content: Any) -> None:
        content[0]["joints_vis"] = [0] * 16
        del content[1]["joints"], content[1]["joints_vis"]

    edit(mpii, change)
    everyone = read(mpii, min_keypoints=0)
    assert [person.annotated.any() for person in everyone] == [False, False, True, True]
    with pytest.raises(InputError, match=r"valid\.json: \[1\]\.joints_vis: .*no such key"):
        read(mpii)
    edit(mpii, lambda content: content.pop(1))
    assert [person.annotation_id for person in read(mpii)] == [1, 2]


def test_people_left_out_do_not_shift_the_head_boxes(mpii: Path) -> None:
    edit(mpii, lambda content: content[0].update(joints_vis=[0] * 16))
    write_mat(mpii)
    assert [person.head_size for person in with_heads(mpii)] == pytest.approx([6, 9, 12])


def test_samples_are_made_of_them(mpii: Path) -> None:
    persons, joints = load_mpii_persons(mpii / "annot/valid.json", mpii / "images")
    sample = PoseDataset(persons, joints, size=(64, 64))[2]
    assert sample["image"].shape == (3, 64, 64) and sample["image"].any()
    scale = 64 / (250 * 0.22)
    x, y = persons[2].keypoints[persons[2].annotated > 0][0]
    expected = [32 + scale * (x - 31), 32 + scale * (y - (24 + 15 * 0.22))]
    assert sample["keypoints"][persons[2].annotated > 0][0].tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[1].pop("image"), r"\[1\]\.image: expected a string, got no such key"),
        (lambda content: content[1].update(image="none.png"), r"none\.png, which does not exist"),
        (lambda content: content[0].update(center=[1]), r"\[0\]\.center: expected a list of 2"),
        (lambda content: content[0].update(scale=0), r"\[0\]\.scale: expected a positive number"),
        (lambda content: content[0].update(scale="big"), r"\[0\]\.scale: expected a finite number"),
        (lambda content: content[0]["joints"].pop(), r"\[0\]\.joints: expected a list of 16 lists of 2"),
        (
            lambda content: content[0]["joints"].__setitem__(2, [1]),
            r"\[0\]\.joints\[2\]: expected a list of 2",
        ),
        (lambda content: content[0]["joints"].__setitem__(2, [1, math.inf]), r"\[0\]\.joints\[2\]: .*inf"),
        (
            lambda content: content[0]["joints_vis"].__setitem__(2, 2),
            r"\[0\]\.joints_vis: expected 0 .* got 2",
        ),
        (lambda content: content[0].update(joints_vis=[1]), r"\[0\]\.joints_vis: .*got 1 values"),
        (lambda content: content.clear(), "expected at least one person"),
        (lambda content: content.insert(0, 3), r"\[0\]: expected an object, got int"),
    ],
)
def test_bad_fields_are_named(mpii: Path, change: Any, message: str) -> None:
    edit(mpii, change)
    with pytest.raises(InputError, match=message) as caught:
        read(mpii)
    assert "valid.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_coco_file_is_no_mpii_file(mpii: Path) -> None:
    (mpii / "annot/valid.json").write_text('{"images": []}')
    with pytest.raises(InputError, match=r"valid\.json: expected a list of objects, got dict"):
        read(mpii)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"headboxes_src": np.zeros((2, 2, 5))},
            r"headboxes_src: .*\(2, 2, 4\): the 4 people of .*got shape",
        ),
        ({"headboxes_src": "boxes"}, "headboxes_src: expected numbers"),
        ({"jnt_missing": np.zeros((4, 16))}, r"jnt_missing: expected shape \(16, 4\)"),
        # the right people in another order
        ({"pos_gt_src": "reversed"}, "pos_gt_src: expected the joints of .*person by person"),
        ({"pos_gt_src": np.full((16, 2, 4), np.nan)}, "pos_gt_src: expected the joints of"),
    ],
)
def test_a_ground_truth_that_does_not_fit_is_named(mpii: Path, change: Any, message: str) -> None:
    if change.get("pos_gt_src") is not None and isinstance(change["pos_gt_src"], str):
        entries = json.loads((mpii / "annot/valid.json").read_text())
        joints = np.array([entry["joints"] for entry in entries[::-1]], float)
        change = {"pos_gt_src": joints.transpose(1, 2, 0)}
    write_mat(mpii, **change)
    with pytest.raises(InputError, match=message) as caught:
        with_heads(mpii)
    assert "gt_valid.mat" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"not a matrix"])
def test_a_broken_ground_truth_is_one_line(mpii: Path, content: bytes) -> None:
    (mpii / "annot/gt_valid.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"gt_valid\.mat: expected a") as caught:
        with_heads(mpii)
    assert "\n" not in str(caught.value)


def test_a_missing_ground_truth_and_a_missing_scipy_are_named(
    mpii: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"none\.mat: .*No such file"):
        read(mpii, head_boxes=mpii / "none.mat")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=r"gt_valid\.mat: .*pip install scipy"):
        with_heads(mpii)


def test_real_mpii(shared_data: Path) -> None:
    folder = shared_data / "formats" / "mpii"
    entries = json.loads((folder / "test_mpii.json").read_text())
    persons, joints = load_mpii_persons(folder / "test_mpii.json", folder)
    assert [person.image_path.name for person in persons] == [entry["image"] for entry in entries]
    dataset = PoseDataset(persons, joints, size=(256, 256))
    for i, (person, entry) in enumerate(zip(persons, entries, strict=True)):
        wanted = hrnet_crop(entry)
        region = region_from_box(person.box, (256, 256))
        assert region.center == pytest.approx(wanted.center, abs=1e-3)
        assert region.size == pytest.approx(wanted.size, rel=1e-6)
        sample = dataset[i]
        assert person.annotated.tolist() == entry["joints_vis"]
        # the whole person lies in the crop
        inside = sample["keypoints"][sample["annotated"] > 0]
        assert ((inside > 0) & (inside < 256)).all()
    # the first joint of the first person, computed by hand: 128 + 256 / (250 s) * ((804, 711) - (966, 340 + 15 s))
    scale = 4.718488
    by_hand = [128 + 1.024 / scale * (804 - 966), 128 + 1.024 / scale * (711 - 340 - 15 * scale)]
    assert dataset[0]["keypoints"][0].tolist() == pytest.approx(by_hand, abs=1e-2)
