"""Joints matched by their names."""

from __future__ import annotations

import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS, JointSet
from cdkd_ext.teachers import JointMap
from cdkd_ext.teachers.presets import read_preset

LSP_JOINTS = JointSet.from_category(
    {
        "keypoints": [
            "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
            "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
        ]
    }
)  # fmt: skip


def test_people_of_lsp_from_coco():
    mapping = JointMap.by_name(LSP_JOINTS, COCO_JOINTS)
    limbs = [16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9]
    assert mapping.sources == (*((j,) for j in limbs), (5, 6), ())
    assert "neck from the middle of left_shoulder and right_shoulder; nothing for head_top" in str(mapping)
    assert not mapping.is_identity


@pytest.mark.parametrize(
    ("preset", "limbs", "neck"),
    [
        ("mediapipe", [28, 26, 24, 23, 25, 27, 16, 14, 12, 11, 13, 15], (11, 12)),
        ("efficientpose", [12, 11, 10, 13, 14, 15, 4, 3, 2, 6, 7, 8], (1,)),
    ],
)
def test_people_of_lsp_from_the_presets(preset, limbs, neck):
    teacher = JointSet.from_category({"keypoints": read_preset(preset)["joints"]})
    assert JointMap.by_name(LSP_JOINTS, teacher).sources[:13] == (*((j,) for j in limbs), neck)


def test_the_same_joints_are_taken_as_they_are():
    assert JointMap.by_name(MPII_JOINTS, MPII_JOINTS).is_identity


def test_spelling_makes_no_difference():
    spelt = JointSet.from_category({"keypoints": ["Nose", "kneeLeft", "kneeRight", "Mid-Hip"]})
    named = JointSet.from_category({"keypoints": ["left_knee", "right_knee", "nose", "pelvis"]})
    assert JointMap.by_name(named, spelt).sources == ((1,), (2,), (0,), (3,))


def test_a_side_is_never_exchanged():
    sources = JointMap.by_name(MPII_JOINTS, COCO_JOINTS).sources
    for name, found in zip(MPII_JOINTS.names, sources, strict=True):
        side = name.partition("_")[0]
        if found and side in ("left", "right"):
            assert all(COCO_JOINTS.names[j].startswith(side) for j in found)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            JointSet(("left_knee", "right_knee"), (0, 1)),
            "joints of the teacher: expected one of the other side, got left_knee as",
        ),
        (
            JointSet(("left_knee", "left_hip", "right_knee", "right_hip"), (3, 2, 1, 0)),
            "joints of the teacher: expected one of the other side, got left_knee as the mirror image of right_hip",
        ),
        (
            JointSet(("wheel", "lamp"), (0, 1)),
            "teacher: expected joints of the data .* got the joints wheel, lamp",
        ),
    ],
)
def test_sides_that_contradict_and_joints_that_match_nothing(teacher, message):
    with pytest.raises(InputError, match=message) as caught:
        JointMap.by_name(LSP_JOINTS, teacher)
    assert "\n" not in str(caught.value)
