"""Accuracy over the joints that a network knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdkd_ext.data import load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import people_accuracy
from cdkd_ext.joints import COCO_JOINTS


@pytest.fixture(scope="module")
def people(official_data):
    root = official_data / "coco"
    persons, _ = load_coco_persons(root / "annotations/person_keypoints_val2017.json", root / "val2017")
    return [replace(person, head_size=20.0) for person in persons]


def _moved(people, joint, distance):
    points = np.stack([person.keypoints for person in people]).astype(np.float64)
    points[:, joint, 0] += distance
    return points


@pytest.mark.parametrize("metric", ["pckh", "AP"])
def test_only_joints_that_count_are_measured(people, metric):
    everything = np.ones(17, dtype=bool)
    assert people_accuracy(_moved(people, 3, 0), people, COCO_JOINTS, everything, metric) == 100
    wrong = _moved(people, 3, 200)
    assert people_accuracy(wrong, people, COCO_JOINTS, everything, metric) < 100
    known = np.arange(17) != 3
    assert people_accuracy(wrong, people, COCO_JOINTS, known, metric) == 100


def test_pckh_is_a_share_of_the_joints(people):
    everything = np.ones(17, dtype=bool)
    assert people_accuracy(_moved(people, 5, 11), people, COCO_JOINTS, everything, "pckh") == pytest.approx(
        1600 / 17
    )
    assert people_accuracy(_moved(people, 5, 9), people, COCO_JOINTS, everything, "pckh") == 100


def test_average_recall_counts_people_over_thresholds(people):
    # one joint alone: its similarity is exp(-d^2 / (2 area (2 sigma)^2))
    known = np.arange(17) == 5
    area, sigma = people[0].area, COCO_JOINTS.sigmas[5]
    distance = np.sqrt(-np.log(0.72) * 2 * area) * 2 * sigma
    recall = people_accuracy(_moved(people[:1], 5, distance), people[:1], COCO_JOINTS, known, "AP")
    # 0.5, 0.55, 0.6, 0.65, 0.7 of ten
    assert recall == pytest.approx(50)


@pytest.mark.parametrize("metric", ["pckh", "AP"])
def test_nothing_to_measure_is_nan(people, metric):
    nobody = np.zeros(17, dtype=bool)
    assert np.isnan(people_accuracy(_moved(people, 0, 0), people, COCO_JOINTS, nobody, metric))


def test_joints_that_count_in_no_mean_are_nothing_to_measure(people):
    names = ("pelvis", *COCO_JOINTS.names[1:])
    joints = replace(COCO_JOINTS, names=names)
    alone = np.arange(17) == 0
    assert np.isnan(people_accuracy(_moved(people, 0, 0), people, joints, alone, "pckh"))
    endless = [replace(person, head_size=float("inf")) for person in people]
    assert np.isnan(people_accuracy(_moved(people, 0, 0), endless, COCO_JOINTS, np.ones(17, bool), "pckh"))


def test_what_does_not_fit_is_refused(people):
    known = np.ones(17, dtype=bool)
    with pytest.raises(InputError, match=r"keypoints: expected shape \(4, 17, 2\), got \(3, 17, 2\)"):
        people_accuracy(np.zeros((3, 17, 2)), people, COCO_JOINTS, known, "pckh")
    with pytest.raises(InputError, match="metric: expected one of 'pckh', 'AP'"):
        people_accuracy(np.zeros((4, 17, 2)), people, COCO_JOINTS, known, "none")


def test_nobody_has_no_accuracy():
    for metric in ("pckh", "AP"):
        assert np.isnan(people_accuracy(np.zeros((0, 17, 2)), [], COCO_JOINTS, np.ones(17, bool), metric))
