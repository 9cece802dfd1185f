"""A teacher's outputs in arrays: what comes back, and which teachers share a folder."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.data import PoseDataset, cached_views, load_coco_persons
from cdkd_ext.data.cached_views import FixedViews, build_student_views
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.teachers import StoredOutputs, build_teacher_outputs


@pytest.fixture
def dataset(drawn_people):
    persons, joints = load_coco_persons(drawn_people / "val/annotations.json", drawn_people / "val/images")
    return PoseDataset(persons[:5], joints, size=(32, 32), teacher_size=(64, 64), seed=3)


def simcc(images):
    """Any callable teaches: this one returns means of its crops, which half floats hold exactly."""
    means = images.float().mean((1, 2, 3)).round()
    return TeacherOutput(*(means.view(-1, 1, *(1,) * rank).expand(-1, 2, *(3,) * rank) for rank in (2, 1, 1)))


def heatmaps(images):
    return TeacherOutput(simcc(images).feature)


@pytest.mark.parametrize("teacher", [simcc, heatmaps])
def test_a_batch_of_fixed_views_holds_the_teacher_s_output(dataset, tmp_path, teacher):
    outputs = build_teacher_outputs(dataset, 2, tmp_path, teacher, "means")
    names = {"feature", "logits_x", "logits_y"} if teacher is simcc else {"feature"}
    assert {path.stem for path in outputs.glob("*.npy")} == names
    views = FixedViews(build_student_views(dataset, 2, tmp_path), StoredOutputs(outputs))
    assert len(views) == 5
    keys = [(4, 1), (0, 0), (2, 1)]
    batch = views.batch(keys)
    samples = [dataset[key] for key in keys]
    expected = teacher(torch.stack([sample["teacher_image"] for sample in samples]))
    output = batch["teacher_output"]
    assert isinstance(output, TeacherOutput)
    for value, wanted in zip(output, expected, strict=True):
        assert value is wanted is None or torch.equal(value, wanted)
    for name in ("image", "keypoints", "annotated", "labelled", "index"):
        assert torch.equal(batch[name], torch.stack([sample[name] for sample in samples])), name
    assert "teacher_output" not in FixedViews(build_student_views(dataset, 2, tmp_path)).batch(keys)


def test_a_folder_is_reused_for_the_same_teacher_and_views_alone(dataset, tmp_path):
    asked = []

    def teacher(images):
        asked.append(len(images))
        return simcc(images)

    first = build_teacher_outputs(dataset, 1, tmp_path, teacher, "a")
    assert build_teacher_outputs(dataset, 1, tmp_path, teacher, "a") == first
    assert asked == [5]
    others = [
        build_teacher_outputs(dataset, 1, tmp_path, teacher, "b"),
        build_teacher_outputs(dataset, 2, tmp_path, teacher, "a"),
    ]
    dataset.teacher_size = (96, 96)
    others.append(build_teacher_outputs(dataset, 1, tmp_path, teacher, "a"))
    assert len({first, *others}) == 4


def test_views_with_other_fields_are_not_taken_for_these(dataset, tmp_path, monkeypatch):
    first = build_student_views(dataset, 1, tmp_path)
    monkeypatch.setattr(cached_views, "STUDENT_FIELDS", ("image", "keypoints"))
    assert build_student_views(dataset, 1, tmp_path) != first
