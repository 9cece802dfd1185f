"""What a network is measured on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cdkd_ext.adaptation import adapt
from cdkd_ext.adaptation.measuring import Watched
from cdkd_ext.data import PoseDataset, load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.teachers.pseudo_labels import PseudoLabels
from python_tests.adaptation.conftest import SIZE


@pytest.fixture
def watched(drawn_people):
    root = drawn_people / "val"
    persons, joints = load_coco_persons(root / "annotations.json", root / "images")
    dataset = PoseDataset(persons[:3], joints, size=(SIZE, SIZE))
    labels = PseudoLabels(np.zeros((3, len(joints), 2), np.float32), np.ones((3, len(joints)), np.float32))
    return Watched.of(dataset, labels)


@pytest.mark.parametrize("height", [16, None])
def test_camera_faults_are_the_same_for_every_network(watched, height):
    clean = [watched.crop(index, height) for index in range(3)]
    faulty = [watched.crop(index, height, 1.0) for index in range(3)]
    for index in range(3):
        assert np.array_equal(faulty[index], watched.crop(index, height, 1.0))
        assert np.array_equal(clean[index], watched.crop(index, height, 0.0))
    # a fault is there in half of all crops
    assert sum(not np.array_equal(*pair) for pair in zip(clean, faulty, strict=True)) >= 2
    seen = []

    def predict(crops):
        seen.append(crops)
        return torch.zeros(len(crops), 16, 2)

    watched.predicted(predict, height, 1.0)
    assert np.array_equal(torch.cat(seen).permute(0, 2, 3, 1).numpy(), np.stack(faulty))


def test_the_report_measures_with_faults_as_well(config, tmp_path, capsys):
    clean = adapt(config)
    both = adapt(replace(config, output=str(tmp_path / "both"), report_faults=1.0))
    heights = len(clean.after)
    assert both.after[:heights] == clean.after
    assert [one.height for one in both.after[heights:]] == [one.height for one in clean.after]
    assert {one.faults for one in both.after[heights:]} == {1.0} and {one.faults for one in clean.after} == {
        0.0
    }
    # the unchanged network at full resolution says what its teacher says, until a camera spoils it
    assert both.before[heights - 1].agreement == 100 > both.before[-1].agreement
    assert [row[0] for row in both.rows()[-2:]] == ["48, faults", "full, faults"]
    assert "camera_faults 0 learnt, 1 measured" in (tmp_path / "both/report.html").read_text()
    assert len(json.loads((tmp_path / "both/report.json").read_text())["after"]) == 2 * heights
    assert "measuring 12 people before and after" in capsys.readouterr().out


def test_what_is_learnt_is_measured_unless_told_otherwise(config):
    learnt = replace(config, data=replace(config.data, camera_faults=0.3))
    assert config.faults_in_report == 0 and learnt.faults_in_report == 0.3
    assert replace(learnt, report_faults=0.0).faults_in_report == 0
    with pytest.raises(InputError, match=r"report_faults: expected a number in \[0, 1\], got 2"):
        replace(config, report_faults=2.0).validate()
