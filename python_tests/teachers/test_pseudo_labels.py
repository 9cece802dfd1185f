"""A teacher's keypoints, asked once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdkd_ext.data import load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, JointSet
from cdkd_ext.teachers import ForeignTeacher, TeacherDescription
from cdkd_ext.teachers.pseudo_labels import ask_teacher, unlabelled_person


class Colors(torch.nn.Module):
    """Maps of where a crop has a joint's colour."""

    def __init__(self, colors: np.ndarray) -> None:
        super().__init__()
        self.colors = torch.tensor(colors / 255, dtype=torch.float32)
        self.asked = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += len(images)
        distance = ((images[:, None] - self.colors[None, :, :, None, None]) ** 2).sum(2)
        return torch.nn.functional.avg_pool2d(torch.exp(-20 * distance), 5, 1, 2)


@pytest.fixture
def people(official_data):
    root = official_data / "coco"
    return load_coco_persons(root / "annotations/person_keypoints_train2017.json", root / "train2017")[0]


def _teacher(joint_colors):
    function = Colors(joint_colors)
    description = TeacherDescription(
        kind="heatmap", input_size=(192, 192), cells="corner", values="probabilities", joints="coco"
    )
    return ForeignTeacher.of(lambda images: function(images), description, COCO_JOINTS), function


def _unlabelled(people):
    return [unlabelled_person(person, np.zeros((17, 2), np.float32)) for person in people]


def test_keypoints_are_those_of_the_image(people, joint_colors, tmp_path):
    labels = ask_teacher(_teacher(joint_colors)[0], "a", _unlabelled(people), tmp_path)
    truth = np.stack([person.keypoints for person in people])
    error = np.linalg.norm(labels.keypoints - truth, axis=-1)
    # dots that another one covers are somewhere else
    assert np.median(error) < 1
    assert len(labels) == len(people) and labels.confidence.min() >= 0


def test_the_annotations_of_the_people_play_no_part(people, joint_colors, tmp_path):
    for person in _unlabelled(people):
        assert not person.annotated.any() and not person.keypoints.any()


def test_what_was_asked_is_read(people, joint_colors, tmp_path):
    teacher, function = _teacher(joint_colors)
    first = ask_teacher(teacher, "a", _unlabelled(people), tmp_path)
    asked = function.asked
    second = ask_teacher(teacher, "a", _unlabelled(people), tmp_path)
    assert function.asked == asked
    assert np.array_equal(first.keypoints, second.keypoints)
    assert np.array_equal(first.confidence, second.confidence)
    # another teacher, or other people, are asked anew
    ask_teacher(teacher, "b", _unlabelled(people), tmp_path)
    ask_teacher(teacher, "a", _unlabelled(people)[1:], tmp_path)
    assert function.asked == asked + 2 * len(people) - 1
    assert len(list(tmp_path.iterdir())) == 3


def test_asking_goes_on_where_it_was_stopped(people, joint_colors, tmp_path):
    teacher, function = _teacher(joint_colors)
    whole = ask_teacher(teacher, "a", _unlabelled(people), tmp_path)
    (path,) = tmp_path.iterdir()
    keypoints = whole.keypoints.copy()
    keypoints[4:] = 0
    np.savez(path, keypoints=keypoints, confidence=whole.confidence, done=4)
    before = function.asked
    again = ask_teacher(teacher, "a", _unlabelled(people), tmp_path)
    assert function.asked == before + len(people) - 4
    assert np.allclose(again.keypoints, whole.keypoints, atol=1e-4)


def test_a_damaged_file_is_written_anew(people, joint_colors, tmp_path):
    teacher, _ = _teacher(joint_colors)
    whole = ask_teacher(teacher, "a", _unlabelled(people), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(ask_teacher(teacher, "a", _unlabelled(people), tmp_path).keypoints, whole.keypoints)


def test_an_image_that_is_gone_is_named(people, joint_colors, tmp_path):
    from dataclasses import replace

    lost = replace(_unlabelled(people)[0], image_path=tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"gone\.png: expected an image, got No such file"):
        ask_teacher(_teacher(joint_colors)[0], "a", [lost], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_joint_that_the_teacher_lacks_has_no_confidence(people, joint_colors, tmp_path):
    joints = JointSet.from_category({"keypoints": [*COCO_JOINTS.names, "tail"]}, "joints")
    function = Colors(joint_colors)
    description = TeacherDescription(kind="heatmap", input_size=(64, 64), cells="corner", joints="coco")
    teacher = ForeignTeacher.of(lambda images: function(images), description, joints)
    persons = [unlabelled_person(person, np.zeros((18, 2), np.float32)) for person in people]
    labels = ask_teacher(teacher, "a", persons, tmp_path)
    assert labels.keypoints.shape[1] == 18
    assert not labels.confidence[:, 17].any() and np.isfinite(labels.keypoints).all()
