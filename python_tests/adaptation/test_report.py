"""The picture of people in an adaptation's report."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from cdkd_ext.adaptation import report
from cdkd_ext.adaptation.measuring import Watched, measured
from cdkd_ext.data import PoseDataset, load_coco_persons
from cdkd_ext.evaluation.agreement import SURE
from cdkd_ext.teachers.pseudo_labels import PseudoLabels
from cdkd_ext.teachers.readers import Readout
from python_tests.adaptation.conftest import SIZE


def test_doubtful_joints_are_drawn_neither_of_the_teacher_nor_before_nor_after(drawn_people, monkeypatch):
    root = drawn_people / "val"
    persons, joints = load_coco_persons(root / "annotations.json", root / "images")
    dataset = PoseDataset(persons[:2], joints, size=(SIZE, SIZE))
    keypoints = np.zeros((2, len(joints), 2), np.float32)

    def confidence_but_of(joint):
        return np.where(np.arange(len(joints)) == joint, SURE / 2, SURE).astype(np.float32)

    watched = Watched.of(dataset, PseudoLabels(keypoints, np.stack([confidence_but_of(0)] * 2)))
    said = []
    for doubtful in (1, 2):
        readout = Readout(torch.from_numpy(keypoints), torch.from_numpy(confidence_but_of(doubtful)[None]))
        network = SimpleNamespace(
            predict=lambda crops, readout=readout: readout._replace(
                confidence=readout.confidence.expand(len(crops), -1)
            )
        )
        metrics, *rest = measured(watched, network, 16, None)
        assert np.isclose(metrics.confidence, rest[1].mean())
        said.append(rest)
    hidden = []
    draw_pose = report.draw_pose

    def drawing(*arguments, drawn):
        hidden.append(np.flatnonzero(~drawn).tolist())
        return draw_pose(*arguments, drawn=drawn)

    monkeypatch.setattr(report, "draw_pose", drawing)
    assert report._people(watched, joints, said, 16).startswith(b"\x89PNG")
    assert hidden == [[0], [1], [2]] * 2
