from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.errors import InputError
from cdkd_ext.joint_sides import split_side
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS, JointSet


def test_mpii_positions_are_the_published_ones() -> None:
    assert len(MPII_JOINTS) == 16
    assert MPII_JOINTS.flip_permutation == (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
    assert [MPII_JOINTS.names[j] for j in (6, 7, 8, 9)] == ["pelvis", "thorax", "upper_neck", "head_top"]
    assert [j for j, upper in enumerate(MPII_JOINTS.upper_body) if upper] == list(range(7, 16))


def test_coco_positions_are_the_published_ones() -> None:
    assert len(COCO_JOINTS) == 17
    assert COCO_JOINTS.flip_permutation == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    assert COCO_JOINTS.sigmas is not None
    assert sum(COCO_JOINTS.sigmas) == pytest.approx(1.138)
    assert [j for j, upper in enumerate(COCO_JOINTS.upper_body) if upper] == list(range(11))
    assert (15, 13) in COCO_JOINTS.edges and len(COCO_JOINTS.edges) == 19


@pytest.mark.parametrize("joints", [COCO_JOINTS, MPII_JOINTS])
def test_every_edge_has_its_mirror_image(joints: JointSet) -> None:
    flip = joints.flip_permutation
    edges = {frozenset(edge) for edge in joints.edges}
    assert {frozenset(flip[j] for j in edge) for edge in edges} == edges


def test_pairs_may_be_numbers_or_names() -> None:
    names = ["paw_a", "tail", "paw_b"]
    by_number = JointSet.from_category({"keypoints": names, "flip_pairs": [[1, 3]], "skeleton": [[2, 3]]})
    by_name = JointSet.from_category(
        {"keypoints": names, "flip_pairs": [["paw_b", "paw_a"]], "skeleton": [["tail", "paw_b"]]}
    )
    assert by_number == by_name
    assert by_number.flip_permutation == (2, 1, 0)
    assert by_number.edges == ((1, 2),)


def test_flip_pairs_win_over_names() -> None:
    joints = JointSet.from_category({"keypoints": ["left_a", "right_a"], "flip_pairs": []})
    assert joints.flip_permutation == (0, 1)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("eye_left", "eye_right"),
        ("L_eye", "R_eye"),
        ("eye_L", "eye_R"),
        ("eye.L", "eye.R"),
        ("l_eye", "r_eye"),
        ("eye-l", "eye-r"),
        ("Left eye", "Right eye"),
        ("left eye", "right eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("leftEye", "rightEye"),
        ("LeftEye", "RightEye"),
        ("eyeLeft", "eyeRight"),
        ("LEye", "REye"),
        ("lEye", "rEye"),
        ("lefteye", "righteye"),
        ("leye", "reye"),
        ("eyeleft", "eyeright"),
        ("eyel", "eyer"),
        ("lft_eye", "rgt_eye"),
        ("front_left_eye", "front_right_eye"),
        ("left_eye_right_corner", "right_eye_left_corner"),
        ("left_eye3", "right_eye3"),
        ("left_Eye", "Right-eye"),
    ],
)
def test_every_scheme_of_sides_pairs_all_its_names(left: str, right: str) -> None:
    paw = [name.replace("eye", "paw").replace("Eye", "Paw").replace("EYE", "PAW") for name in (left, right)]
    joints = JointSet.from_category({"keypoints": [left, "nose", right, *paw, "neck"]})
    assert joints.flip_permutation == (2, 1, 0, 4, 3, 5)
    assert joints.flip_pairs == ((left, right), (paw[0], paw[1]))
    # beside names of another scheme
    mixed = JointSet.from_category({"keypoints": ["left_hip", "right_hip", right, left]})
    assert mixed.flip_permutation == (1, 0, 3, 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["left_eye", "right_eye", "L_ear"], "R_ear too, or flip_pairs, got L_ear alone"),
        (["left_eye", "right_eye", "ear_right"], "ear_left too, or flip_pairs, got ear_right alone"),
        (["left_eye", "right_eye", "leftEar"], "rightEar too, or flip_pairs, got leftEar alone"),
        (["left_eye", "right_eye", "ear_l"], "ear_r too, or flip_pairs, got ear_l alone"),
        (["left_eye", "right_eye", "Right ear"], "Left ear too, or flip_pairs, got Right ear alone"),
        (["left_eye", "right_eye", *(f"face-{i}" for i in range(17))], "got face-0 to face-16 without sides"),
        (["left_eye", "right_eye", "p1", "p2"], "got p1 to p2 without sides"),
        (["left_eye", "right_eye", "Left_Eye"], "one partner per name"),
    ],
)
def test_a_side_without_partner_is_named(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=f"a.json: .*{message}"):
        JointSet.from_category({"keypoints": names}, "a.json: categories[0]")
    assert JointSet.from_category({"keypoints": names, "flip_pairs": [[1, 2]]}).flip_permutation[:2] == (1, 0)


def test_what_only_looks_like_a_side_is_none() -> None:
    names = ["left_hip", "right_hip", "cleft", "upright", "lip", "root", "L5", "spine1", "spine2", "C7"]
    joints = JointSet.from_category({"keypoints": names})
    assert joints.flip_pairs == (("left_hip", "right_hip"),)


@given(st.integers(0, 8), st.integers(0, 8), st.randoms(use_true_random=False))
def test_category_round_trip(pairs: int, single: int, random: Random) -> None:
    names = [f"{side}_{i}" for i in range(pairs) for side in ("left", "right")] + [
        f"mid_{i}" for i in range(single)
    ]
    if not names:
        return
    random.shuffle(names)
    skeleton = [[random.randint(1, len(names)) for _ in range(2)] for _ in range(4)]
    sigmas = [random.uniform(0.01, 0.2) for _ in names]
    flip_pairs = [[f"left_{i}", f"right_{i}"] for i in range(pairs)]
    joints = JointSet.from_category(
        {"keypoints": names, "skeleton": skeleton, "flip_pairs": flip_pairs, "sigmas": sigmas}
    )
    assert JointSet.from_category(joints.to_category()) == joints
    for j, mirror in enumerate(joints.flip_permutation):
        assert {names[j].split("_")[0], names[mirror].split("_")[0]} in ({"mid"}, {"left", "right"})
        assert names[j].split("_")[1] == names[mirror].split("_")[1]
    if pairs:
        derived = JointSet.from_category({"keypoints": names})
        assert derived.flip_permutation == joints.flip_permutation


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "dog.yaml"
    path.write_text(
        "keypoints: [nose, left_paw, right_paw]\nsigmas: [0.1, 0.2, 0.2]\nskeleton: [[nose, left_paw]]\n"
    )
    assert JointSet.from_yaml(path) == JointSet(
        ("nose", "left_paw", "right_paw"), (0, 2, 1), (0.1, 0.2, 0.2), ((0, 1),)
    )


@pytest.mark.parametrize(
    ("category", "field"),
    [
        ({}, "keypoints"),
        ({"keypoints": []}, "keypoints"),
        ({"keypoints": "nose"}, "keypoints"),
        ({"keypoints": ["nose", 3]}, "keypoints"),
        ({"keypoints": ["left_a", "right_a", "left_a"]}, "keypoints: expected unique"),
        ({"keypoints": ["nose", "left_hand"]}, "right_hand"),
        ({"keypoints": ["l_hand", "r_hand"]}, "flip_pairs"),
        ({"keypoints": ["a", "b"], "flip_pairs": [[0, 1]]}, r"flip_pairs\[0\]"),
        ({"keypoints": ["a", "b"], "flip_pairs": [[1, 3]]}, r"flip_pairs\[0\]"),
        ({"keypoints": ["a", "b"], "flip_pairs": [[1, 2], [2, 1]]}, r"flip_pairs\[1\]"),
        ({"keypoints": ["a", "b"], "flip_pairs": [["a", "c"]]}, r"flip_pairs\[0\]"),
        ({"keypoints": ["a", "b"], "flip_pairs": [[1, 1]]}, r"flip_pairs\[0\]"),
        ({"keypoints": ["a", "b"], "flip_pairs": 3}, "flip_pairs"),
        ({"keypoints": ["a", "b"], "flip_pairs": [], "skeleton": [[1, 2, 2]]}, r"skeleton\[0\]"),
        ({"keypoints": ["a", "b"], "flip_pairs": [], "sigmas": [0.1]}, "sigmas"),
        ({"keypoints": ["a", "b"], "flip_pairs": [], "sigmas": [0.1, 0]}, "sigmas"),
        ({"keypoints": ["a", "b"], "flip_pairs": [], "sigmas": [0.1, float("nan")]}, "sigmas"),
    ],
)
def test_bad_category_names_the_field(category: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=f"a.json: categories.*{field}"):
        JointSet.from_category(category, "a.json: categories[0]")


@pytest.mark.parametrize(
    ("permutation", "sigmas", "edges", "field"),
    [
        ((0, 0), None, (), "flip_permutation"),
        ((0,), None, (), "flip_permutation"),
        ((0, 1), (0.1,), (), "sigmas"),
        ((0, 1), None, ((0, 2),), "edges"),
    ],
)
def test_bad_joint_set(permutation: Any, sigmas: Any, edges: Any, field: str) -> None:
    with pytest.raises(InputError, match=field):
        JointSet(("a", "b"), permutation, sigmas, edges)


def test_a_permutation_is_its_own_inverse() -> None:
    with pytest.raises(InputError, match="own inverse"):
        JointSet(("a", "b", "c"), (1, 2, 0))


@pytest.mark.parametrize("text", ["keypoints: [", "- nose", "", "keypoints: \x00"])
def test_bad_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "joints.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"joints\.yaml"):
        JointSet.from_yaml(path)


def test_missing_yaml_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml"):
        JointSet.from_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "side", "rest"),
    [
        ("left_knee", "left", "knee"),
        ("knee_R", "right", "knee"),
        ("Left knee", "left", "knee"),
        ("rightKnee", "right", "Knee"),
        ("left_eye_right_corner", "left", "eye_right_corner"),
        ("lip", None, "lip"),
        ("head_top", None, "head_top"),
    ],
)
def test_the_side_of_a_name(name: str, side: str | None, rest: str) -> None:
    assert split_side(name) == (side, rest)
