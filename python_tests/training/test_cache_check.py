"""What the ways to store a teacher's outputs lose, measured on keypoints."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig, PoseDataset
from cdkd_ext.data.loading import load_validation
from cdkd_ext.distillation import TeacherOutput, TeacherSpec
from cdkd_ext.errors import InputError
from cdkd_ext.training import DistillationConfig, cache_check
from cdkd_ext.training.cache_check import check_cache

BINS = 768


class Knowing:
    """A teacher that knows half of the labels of the people who come, in their order, and is far off with the others.

    Of each joint and axis it gives a peak at its place, another one elsewhere, and clutter. No joint is near the threshold, so
    that storing what it says changes no result.
    """

    def __init__(self, truth):
        self.teacher_spec = TeacherSpec(
            input_size=(256, 256), num_joints=len(truth.joints), joints=truth.joints, num_bins=(BINS, BINS)
        )
        dataset = PoseDataset(truth.persons, truth.joints, size=(256, 256))
        labels = torch.stack([dataset[index]["keypoints"] for index in range(len(dataset))])
        self._random = torch.Generator().manual_seed(0)
        pixels = torch.where(torch.rand(labels.shape[:2], generator=self._random) < 0.5, 3.0, 60.0)
        # towards the middle, so that all stay inside
        error = pixels[..., None] * torch.nn.functional.normalize(128 - labels, dim=-1)
        self._centers = (labels + error) * BINS / 256

    def __call__(self, images):
        centers, self._centers = self._centers.split([len(images), len(self._centers) - len(images)])
        return TeacherOutput(None, *(self._logits(centers[..., axis]) for axis in (0, 1)))

    def _logits(self, centers):
        widths = 2 + 8 * torch.rand(centers.shape, generator=self._random)
        others = BINS * torch.rand(centers.shape, generator=self._random)

        def peaks(centers):
            places = torch.arange(float(BINS))
            return (-((places - centers[..., None]) / widths[..., None]).square() / 2).softmax(-1)

        return (0.8 * peaks(centers) + 0.17 * peaks(others) + 0.03 / BINS).log()


@pytest.fixture
def config(drawn_people):
    return DistillationConfig(
        teacher="a stand-in", data=DataConfig(root=str(drawn_people), workers=0), cpu=True
    )


@pytest.fixture
def knowing(config, monkeypatch):
    teacher = Knowing(load_validation(config.data))
    monkeypatch.setattr(cache_check, "load_view_teacher", lambda *given: teacher)
    monkeypatch.setattr(cache_check, "student_spec", lambda *given: teacher.teacher_spec)


@pytest.mark.usefixtures("knowing")
def test_compact_storage_keeps_the_keypoints(config):
    report = check_cache(config)
    computed, dense, compact = report.stored
    joints = len(load_validation(config.data).joints)
    assert [one.name for one in report.stored] == ["computed", "dense", "compact"] and report.people == 12
    assert (computed.bytes, dense.bytes) == (2 * joints * BINS * 4, 2 * joints * BINS * 2)
    assert compact.bytes == joints * 2 * 89 + 2 * 2
    assert 20 < computed.accuracy < 95 and report.metric == "PCKh@0.5"
    assert (computed.moved, computed.farthest, computed.divergence) == (0, 0, 0)
    assert compact.accuracy == computed.accuracy == dense.accuracy
    assert dense.divergence < 1e-6 < compact.divergence < 0.01
    assert dense.farthest < 0.5 and compact.farthest < 1.5


def test_a_coding_that_is_wrong_shows(config, knowing, monkeypatch):
    right = cache_check.compact_output

    def shifted(columns):
        for name in ("logits_x", "logits_y"):
            columns[f"{name}.start"] = (columns[f"{name}.start"].int() + 9).to(torch.uint16)
        return right(columns)

    monkeypatch.setattr(cache_check, "compact_output", shifted)
    computed, dense, compact = check_cache(config).stored
    assert compact.moved > 50 and compact.farthest >= 9 * 256 / BINS and compact.divergence > 0.1
    assert dense.farthest < 1 and computed.accuracy == pytest.approx(dense.accuracy, abs=0.1)


def test_the_command_measures_a_teacher_of_other_joints(
    drawn_people, write_teacher, tmp_path, capsys, monkeypatch
):
    """It knows six of the joints, and the others do not count."""
    monkeypatch.chdir(tmp_path)
    write_teacher(tmp_path / "colors.onnx", joints=6)
    names = "left_ankle, left_elbow, left_knee, right_ankle, right_elbow, right_knee"
    (tmp_path / "colors.yaml").write_text(f"file: colors.onnx\nkind: heatmap\njoints: [{names}]\n")
    options = [f"--data.root={drawn_people}", "--teacher=colors.yaml", "--cpu=true", "--data.workers=0"]
    assert main(["cache", "check", *options, "--people=5"]) == 0
    _, title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == "colors.yaml, 5 people, keypoints at the highest bins" and "PCKh@0.5" in head
    values = {row.split()[0]: [float(value) for value in row.split()[1:]] for row in rows}
    assert set(values) == {"computed", "dense", "compact"}
    # sixteen bins of an axis are stored one by one
    assert abs(values["compact"][1] - values["dense"][1]) <= 0.1
    assert values["compact"][4] < 1e-3 and np.isfinite(values["computed"]).all()
    assert sorted(os.listdir()) == ["colors.onnx", "colors.yaml"]


@pytest.mark.usefixtures("knowing")
def test_people_who_are_spread_evenly_are_asked_about(config):
    assert re.search(r"a stand-in, 3 people", str(check_cache(config, people=3)))


def test_what_cannot_be_compared_is_named(config, knowing, monkeypatch):
    with pytest.raises(InputError, match="people: expected a positive number, got 0"):
        check_cache(config, people=0)
    with pytest.raises(InputError, match=r"data\.val: expected people to validate on"):
        check_cache(replace(config, data=replace(config.data, val=None)), people=3)
    maps = Knowing(load_validation(config.data))
    maps.teacher_spec = replace(maps.teacher_spec, num_bins=None)
    monkeypatch.setattr(cache_check, "load_view_teacher", lambda *given: maps)
    with pytest.raises(
        InputError, match=r"teacher: expected one with distributions, .* got feature maps alone"
    ):
        check_cache(config)
