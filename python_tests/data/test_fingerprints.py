"""What was stored is taken for what would be stored now only if nothing changed that goes into it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from cdkd_ext.data import Augmentation, PoseDataset, cached_views, load_coco_persons, stored_crops
from cdkd_ext.data.cached_views import build_student_views
from cdkd_ext.data.stored_crops import build_stored_crops
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers import build_compact_outputs, build_teacher_outputs


@pytest.fixture
def options(tiny_data):
    persons, joints = load_coco_persons(tiny_data.annotations, tiny_data.images)
    return {"persons": persons, "joints": joints, "size": (16, 16), "teacher_size": (32, 32), "padding": 1.25}


def rewritten(folder):
    """The same file with other bytes, of the same time."""
    path = folder / "images/a.png"
    status = path.stat()
    path.write_bytes((folder / "images/b.jpg").read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def first_changed(options, **fields):
    first, *others = options["persons"]
    return {**options, "persons": [replace(first, **fields), *others]}


def other_pairs(options):
    """No joint mirrors another: names that say no side."""
    return {**options, "joints": JointSet(("nose", "hat", "bag"), (0, 1, 2))}


CHANGES = {
    "image": lambda options: (rewritten(options["persons"][0].image_path.parent.parent), options)[1],
    "box": lambda options: first_changed(options, box=np.array([9, 5, 30, 20], np.float32)),
    "keypoints": lambda options: first_changed(options, keypoints=np.ones((3, 2), np.float32)),
    "annotated": lambda options: first_changed(options, annotated=np.ones(3, np.float32)),
    "order": lambda options: {**options, "persons": options["persons"][::-1]},
    "joints that mirror each other": other_pairs,
    "size": lambda options: {**options, "size": (8, 8), "teacher_size": (16, 16)},
    "padding": lambda options: {**options, "padding": 1.5},
    "augmentation": lambda options: {**options, "augmentation": Augmentation()},
    "seed": lambda options: {**options, "seed": 1},
    "resample": lambda options: {**options, "resample": "linear"},
    "camera faults": lambda options: {**options, "camera_faults": 0.5},
    "labelled fraction": lambda options: {**options, "labelled_fraction": 0.5},
}  # fmt: skip
# crops are stored without augmentation and without labels
INTO_CROPS = {"image", "box", "order", "size", "padding"}


@pytest.mark.parametrize("change", CHANGES)
def test_what_goes_in_is_part_of_the_fingerprint(options, tmp_path, change):
    before = [build(PoseDataset(**options)) for build in builders(tmp_path / "cache")]
    changed = CHANGES[change](options)
    after = [build(PoseDataset(**changed)) for build in builders(tmp_path / "cache")]
    assert before[0] != after[0]
    assert (before[1] != after[1]) == (change in INTO_CROPS)


def builders(cache):
    return [
        lambda dataset: build_student_views(dataset, 1, cache),
        lambda dataset: build_stored_crops(dataset, cache),
    ]


def test_how_the_teacher_s_crops_are_made_is_part_of_what_is_computed_from_them(options, tmp_path):
    """Of stored crops, too, which are made as its are; of the student's views it is not."""

    def asked(images):
        return TeacherOutput(images.float())

    def build(dataset):
        return [
            build_teacher_outputs(dataset, 1, tmp_path, asked, "a teacher"),
            build_compact_outputs(dataset, 1, tmp_path, asked, "a teacher", features=True),
            build_stored_crops(dataset, tmp_path),
            build_student_views(dataset, 1, tmp_path),
        ]

    first, second = (build(PoseDataset(**options, teacher_resample=way)) for way in ("area", "linear"))
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, False, True]
    # what the student's crops are like is no matter of the teacher's
    third = build(PoseDataset(**options, resample="linear", camera_faults=0.5))
    assert [a == b for a, b in zip(first, third, strict=True)] == [True, True, True, False]


def test_nothing_changed_is_found_again(options, tmp_path):
    for build in builders(tmp_path / "cache"):
        assert build(PoseDataset(**options)) == build(PoseDataset(**options))


@pytest.mark.parametrize(("number", "module"), [(0, cached_views), (1, stored_crops)])
def test_another_way_to_crop_is_not_taken_for_this_one(options, tmp_path, monkeypatch, number, module):
    build, dataset = builders(tmp_path / "cache")[number], PoseDataset(**options)
    before = build(dataset)
    monkeypatch.setattr(module, "CROPS_VERSION", 0)
    assert build(dataset) != before


def test_a_half_body_s_joints_are_part_of_the_fingerprint(options, tmp_path, monkeypatch):
    build, dataset = builders(tmp_path / "cache")[0], PoseDataset(**options)
    before = build(dataset)
    monkeypatch.setattr(JointSet, "upper_body", (False, False, False))
    assert build(dataset) != before


def test_whose_labels_may_be_used_is_part_of_the_fingerprint(options, tmp_path):
    build, dataset = builders(tmp_path / "cache")[0], PoseDataset(**options)
    before = build(dataset)
    dataset.labelled[0] = False
    assert build(dataset) != before


def test_images_that_were_copied_or_touched_are_the_same(options, tmp_path):
    """In another folder, at another time: a disk that was mounted elsewhere costs nothing."""
    cache = tmp_path / "cache"
    before = [build(PoseDataset(**options)) for build in builders(cache)]
    (old,) = {person.image_path.parent for person in options["persons"]}
    new = shutil.copytree(old, tmp_path / "elsewhere")
    for path in new.iterdir():
        os.utime(path, ns=(1, 1))
    moved = [replace(person, image_path=new / person.image_path.name) for person in options["persons"]]
    assert [build(PoseDataset(**{**options, "persons": moved})) for build in builders(cache)] == before
