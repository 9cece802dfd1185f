from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cdkd_ext.data import load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.synthetic import dataset as dataset_module
from cdkd_ext.synthetic.body import build_body
from cdkd_ext.synthetic.clothes import random_outfit
from cdkd_ext.synthetic.dataset import draw_people
from cdkd_ext.synthetic.drawing import draw_person
from cdkd_ext.synthetic.mesh import PART_LABELS
from cdkd_ext.synthetic.pose import (
    ARM_LIMITS,
    FAMILIES,
    LEG_LIMITS,
    Pose,
    build_skeleton,
    random_pose,
    random_proportions,
)

RIGHT_JOINTS, LEFT_JOINTS = [0, 1, 2, 10, 11, 12], [5, 4, 3, 15, 14, 13]


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder and the digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory):
    """A set of 90 images: more than one task of a worker process."""
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    path = draw_people(folder, 90, seed=5)
    assert path == folder / "annotations.json"
    return folder


@pytest.fixture(scope="module")
def content(drawn_set):
    return json.loads((drawn_set / "annotations.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def drawn():
    """People straight from the renderer."""
    return [draw_person(np.random.default_rng(index), 96) for index in range(150)]


def test_same_bytes_for_any_number_of_workers(drawn_set, tmp_path):
    draw_people(tmp_path / "two", 90, seed=5, workers=2)
    assert digests(tmp_path / "two") == digests(drawn_set)


def test_image_depends_on_seed_and_index_only(drawn_set, content, tmp_path):
    path = draw_people(tmp_path / "shorter", 7, seed=5)
    assert json.loads(path.read_text())["annotations"] == content["annotations"][:7]
    shorter, longer = digests(tmp_path / "shorter"), digests(drawn_set)
    assert all(longer[name] == shorter[name] for name in shorter if name.endswith(".jpg"))

    draw_people(tmp_path / "other", 7, seed=6)
    other = digests(tmp_path / "other")
    assert not any(longer[name] == other[name] for name in other)


def test_images_differ(drawn_set):
    names = [digest for name, digest in digests(drawn_set).items() if name.endswith(".jpg")]
    assert len(names) == len(set(names)) == 90


def test_images_have_the_asked_size_and_are_colourful(tmp_path):
    path = draw_people(tmp_path / "set", 12, size=72)
    listed = json.loads(path.read_text())["images"]
    for image in listed:
        assert (image["width"], image["height"]) == (72, 72)
        pixels = cv2.imread(str(tmp_path / "set" / "images" / image["file_name"]))
        assert pixels.shape == (72, 72, 3)
        assert pixels.std() > 8


def test_annotation_fields(content):
    assert content["info"]["seed"] == 5
    assert "head_size" in content["info"]["description"]
    (category,) = content["categories"]
    assert tuple(category["keypoints"]) == MPII_JOINTS.names
    assert [2, 5] in category["flip_pairs"]  # 1-based: the knees
    assert all(1 <= joint <= 16 for edge in category["skeleton"] for joint in edge)
    assert len({image["id"] for image in content["images"]}) == len(content["images"]) == 90
    images = {image["id"]: image for image in content["images"]}
    assert len(content["annotations"]) == 90
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        keypoints = np.reshape(annotation["keypoints"], (16, 3))
        x, y, visibility = keypoints.T
        assert set(visibility) <= {0, 1, 2}
        assert annotation["num_keypoints"] == (visibility > 0).sum()
        assert annotation["iscrowd"] == 0
        assert annotation["category_id"] == category["id"]
        assert (keypoints[visibility == 0] == 0).all()
        # pixel centres are integers: the frame ends half a pixel beyond the outermost
        assert x.min() >= -0.5
        assert y.min() >= -0.5
        assert x.max() <= image["width"] - 0.5
        assert y.max() <= image["height"] - 0.5
        left, top, width, height = annotation["bbox"]
        assert -0.5 <= left <= left + width <= image["width"] - 0.49
        assert -0.5 <= top <= top + height <= image["height"] - 0.49
        shown = keypoints[visibility > 0]
        assert (shown[:, 0] > left - 2).all()
        assert (shown[:, 0] < left + width + 2).all()
        assert (shown[:, 1] > top - 2).all()
        assert (shown[:, 1] < top + height + 2).all()
        assert 0 < annotation["area"] < width * height
        assert annotation["head_size"] > 2


def test_round_trip_through_the_coco_reader(drawn_set, content):
    persons, joints = load_coco_persons(drawn_set / "annotations.json", drawn_set / "images")
    assert joints == MPII_JOINTS
    assert len(persons) == 90
    for person, annotation in zip(persons, content["annotations"], strict=True):
        keypoints = np.reshape(annotation["keypoints"], (16, 3))
        np.testing.assert_allclose(person.keypoints, keypoints[:, :2], atol=1e-4)
        np.testing.assert_array_equal(person.annotated, keypoints[:, 2] > 0)
        assert person.head_size == pytest.approx(annotation["head_size"])
        assert Path(person.image_path).is_file()


@pytest.mark.parametrize("index", range(40))
def test_bone_lengths_follow_the_proportions(index):
    rng = np.random.default_rng(index)
    body = random_proportions(rng)
    _, pose = random_pose(rng)
    joints = build_skeleton(body, pose).joints
    bones = {
        (0, 1): body.shin, (1, 2): body.thigh, (5, 4): body.shin, (4, 3): body.thigh,
        (10, 11): body.forearm, (11, 12): body.upper_arm, (15, 14): body.forearm, (14, 13): body.upper_arm,
        (7, 8): body.neck, (8, 9): body.head, (2, 3): 2 * body.hip,
    }  # fmt: skip
    for (first, second), length in bones.items():
        assert np.linalg.norm(joints[first] - joints[second]) == pytest.approx(length)
    assert body.trunk * 0.75 < np.linalg.norm(joints[7] - joints[6]) <= body.trunk * 1.0001
    assert ((pose.arms >= ARM_LIMITS[:, 0]) & (pose.arms <= ARM_LIMITS[:, 1])).all()
    assert ((pose.legs >= LEG_LIMITS[:, 0]) & (pose.legs <= LEG_LIMITS[:, 1])).all()


def test_neutral_pose_is_upright_and_mirror_symmetric():
    body = random_proportions(np.random.default_rng(0))
    joints = build_skeleton(body, Pose()).joints
    np.testing.assert_allclose(joints[RIGHT_JOINTS] * (-1, 1, 1), joints[LEFT_JOINTS], atol=1e-12)
    assert (joints[LEFT_JOINTS][:, 0] > 0).all()
    heights = joints[[0, 1, 2, 7, 8, 9], 1]
    assert (np.diff(heights) > 0).all()
    # knees bend backwards, elbows forwards
    bent = Pose(arms=np.full((2, 4), (0.0, 0, 0, 90)), legs=np.full((2, 4), (0.0, 0, 0, 90)))
    joints = build_skeleton(body, bent).joints
    assert joints[0, 2] == pytest.approx(-body.shin)
    assert joints[10, 2] == pytest.approx(body.forearm)


def test_mirrored_angles_give_the_mirrored_skeleton():
    rng = np.random.default_rng(3)
    body = random_proportions(rng)
    for _ in range(10):
        _, pose = random_pose(rng)
        mirrored = Pose(
            root=pose.root * (1, -1),
            spine=pose.spine * (1, -1, -1),
            neck=pose.neck * (1, -1, -1),
            arms=pose.arms[::-1],
            legs=pose.legs[::-1],
            feet=pose.feet[::-1],
        )
        joints, reflected = build_skeleton(body, pose).joints, build_skeleton(body, mirrored).joints
        permutation = list(MPII_JOINTS.flip_permutation)
        np.testing.assert_allclose(reflected, joints[permutation] * (-1, 1, 1), atol=1e-12)


def test_every_face_looks_outwards():
    rng = np.random.default_rng(1)
    body = random_proportions(rng)
    mesh = build_body(body, build_skeleton(body, Pose()), random_outfit(rng))
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    torso = mesh.labels == PART_LABELS["torso"]
    middle = corners[torso].mean(1)
    axis = middle * (0, 1, 0)  # the neutral trunk stands on the y axis
    assert ((middle - axis) * normals[torso]).sum(1).min() > -1e-9
    assert set(np.unique(mesh.labels)) == set(PART_LABELS.values()) - {PART_LABELS["seat"]}


def test_left_and_right_follow_the_camera(monkeypatch):
    """Facing the camera a person's left is on the image's right; from behind it is the other way round."""
    monkeypatch.setattr(
        "cdkd_ext.synthetic.drawing.random_pose",
        lambda rng: ("stand", Pose(arms=np.full((2, 4), (0.0, 60, 0, 0)))),
    )

    class Camera(np.random.Generator):
        """Always the same of the three ways to face the camera."""

        facing = 0

        def choice(self, a, *args, **kwargs):
            return self.facing if isinstance(a, int) and a == 3 else super().choice(a, *args, **kwargs)

    for facing, sign in ((0, 1), (1, -1)):
        order = []
        for seed in range(12):
            rng = Camera(np.random.Philox(seed))
            rng.facing = facing
            keypoints = draw_person(rng, 64).keypoints
            if keypoints[[10, 15], 2].all():
                order.append(np.sign(keypoints[15, 0] - keypoints[10, 0]))
        assert len(order) > 6
        assert np.mean(np.array(order) == sign) > 0.85


def test_framing_and_visibility_rates(drawn):
    visibility = np.stack([person.keypoints[:, 2] for person in drawn])
    assert 0.94 < (visibility > 0).mean() < 1
    assert 0.6 < (visibility == 2).mean() < 0.92
    longer = np.array([person.box[2:].max() / 96 for person in drawn])
    assert longer.min() > 0.69
    assert longer.max() <= 1.0
    assert 0.75 < np.median(longer) < 0.9


def test_every_family_is_drawn_and_shares_sum_to_one():
    rng = np.random.default_rng(0)
    assert {random_pose(rng)[0] for _ in range(400)} == set(FAMILIES)
    assert sum(share for share, _ in FAMILIES.values()) == pytest.approx(1)


def test_head_size_follows_the_head_segment(drawn):
    # the projected segment is at most the unforeshortened one, which is head_size / 0.75
    upright = [person for person in drawn if person.keypoints[[8, 9], 2].all()]
    segments = np.array([np.linalg.norm(np.subtract(*person.keypoints[[9, 8], :2])) for person in upright])
    ratio = segments / np.array([person.head_size for person in upright])
    assert ratio.max() < 1 / 0.75 * 1.15
    assert 1.1 < np.median(ratio) < 1 / 0.75 * 1.02


def test_visible_joints_lie_on_the_person(monkeypatch):
    """Without a background and a camera's flaws, visible joints show the person and not the black around."""
    module = "cdkd_ext.synthetic.drawing"
    monkeypatch.setattr(f"{module}.random_background", lambda rng, size: np.zeros((size, size, 3), np.uint8))
    monkeypatch.setattr(f"{module}.photograph", lambda rng, image: image)
    monkeypatch.setattr(f"{module}.add_occluders", lambda *arguments: None)
    on_person = []
    for seed in range(20):
        person = draw_person(np.random.default_rng(seed), 128)
        for x, y, visible in person.keypoints:
            if visible == 2:
                on_person.append(person.image[round(y), round(x)].any())
    assert np.mean(on_person) > 0.93  # the rest: head tops and rims


def test_an_empty_folder_is_filled_and_progress_reported(tmp_path):
    (tmp_path / "empty").mkdir()
    counts: list[int] = []
    path = draw_people(tmp_path / "empty", 3, size=32, progress=counts.append)
    assert path.is_file()
    assert counts[-1] == 3
    assert sorted(os.listdir(tmp_path)) == ["empty"]


def test_parent_folders_are_created(tmp_path):
    assert draw_people(tmp_path / "a" / "b", 1, size=32).is_file()


def test_refuses_to_mix_with_existing_files(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(InputError, match="expected a new or empty folder, got a folder with files"):
        draw_people(tmp_path, 1)
    with pytest.raises(InputError, match="expected a new or empty folder, got a file"):
        draw_people(tmp_path / "keep.txt", 1)
    assert sorted(os.listdir(tmp_path)) == ["keep.txt"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def broken(rng, size):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_module, "draw_person", broken)
    with pytest.raises(KeyboardInterrupt):
        draw_people(tmp_path / "set", 2)
    assert os.listdir(tmp_path) == []


def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from cdkd_ext.synthetic.dataset import draw_people\n"
        f"draw_people({str(tmp_path / 'set')!r}, {dataset_module._CHUNK + 1}, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    last = next(line for line in reversed(done.stderr.splitlines()) if "InputError" in line)
    assert 'workers: expected a script that begins its work under `if __name__ == "__main__":`, or 1' in last
    assert os.listdir(tmp_path) == ["script.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count: expected a positive number of images, got 0"),
        ({"seed": -1}, "seed: expected a non-negative integer, got -1"),
        ({"size": 16}, "size: expected a side from 32 to 1024 pixels, got 16"),
        ({"workers": 0}, "workers: expected a positive number of processes, got 0"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        draw_people(tmp_path / "set", **{"count": 1, **arguments})
    assert os.listdir(tmp_path) == []


def test_wrong_types(tmp_path):
    with pytest.raises(TypeError, match="count: expected an integer, got float"):
        draw_people(tmp_path / "set", 1.5)
