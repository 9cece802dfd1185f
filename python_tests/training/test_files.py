"""Configurations as files: which data a run was trained with."""

from __future__ import annotations

import pytest

from cdkd_ext.data import Augmentation
from cdkd_ext.detectors import DetectionOptions
from cdkd_ext.errors import InputError
from cdkd_ext.training import TrainingConfig, save_config
from cdkd_ext.training.files import data_of_run


def test_the_data_of_a_run_are_read_back(tmp_path):
    config = TrainingConfig(output=str(tmp_path))
    config.data.root = "people"
    config.data.augmentation = Augmentation(scale=0.1)
    config.data.detection = DetectionOptions(min_score=0.5, size=(320, 320))
    save_config(config, tmp_path / "config.yaml")
    found = data_of_run(tmp_path)
    assert found.root == "people" and found.augmentation == config.data.augmentation
    assert found.detection.min_score == 0.5 and list(found.detection.size or ()) == [320, 320]


def test_drawn_people_are_in_the_runs_folder(tmp_path):
    save_config(TrainingConfig(output="elsewhere"), tmp_path / "config.yaml")
    assert data_of_run(tmp_path).root == str(tmp_path / "synthetic")


def test_other_options_are_named(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {rot: people}\n")
    with pytest.raises(
        InputError, match=r"config.yaml: data: expected the options of a run's data, got .*'rot'"
    ):
        data_of_run(tmp_path)
