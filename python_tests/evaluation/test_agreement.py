"""Agreement with a teacher."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import agreement
from cdkd_ext.evaluation.agreement import NEAR, SURE


def test_sure_joints_within_a_twentieth_of_the_crop_count():
    rng = np.random.default_rng(0)
    expected, found = rng.uniform(0, 100, (40, 5, 2)), rng.uniform(0, 100, (40, 5, 2))
    found[:, :3] = expected[:, :3] + rng.normal(0, 3, (40, 3, 2))
    confidence, sides = rng.random((40, 5)), rng.uniform(20, 200, 40)
    right = total = 0
    for person in range(40):
        for joint in range(5):
            if confidence[person, joint] >= 0.3:
                total += 1
                away = math.dist(found[person, joint], expected[person, joint])
                right += away <= sides[person] / 20
    assert agreement(found, expected, confidence, sides) == pytest.approx(100 * right / total)
    assert 20 < 100 * right / total < 80 and (SURE, NEAR) == (0.3, 0.05)


def test_one_side_is_for_all_and_the_edge_counts():
    expected = np.zeros((2, 1, 2))
    found = np.array([[[0.0, 5.0]], [[5.0, 0.01]]])
    assert agreement(found, expected, np.full((2, 1), 0.3), 100) == 50


def test_a_teacher_that_is_sure_of_nothing_leaves_nothing_to_measure():
    assert math.isnan(agreement(np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), np.full((2, 3), 0.29), 1))


def test_what_is_nan_agrees_with_nothing():
    found = np.full((1, 2, 2), np.nan)
    found[0, 0] = 0
    assert agreement(found, np.zeros((1, 2, 2)), np.ones((1, 2)), 10) == 50


def test_shapes_have_to_fit():
    points = np.zeros((2, 3, 2))
    with pytest.raises(InputError, match=r"keypoints: expected shape \(2, 3, 2\), got \(1, 3, 2\)"):
        agreement(points[:1], points, np.ones((2, 3)), 1)
    with pytest.raises(InputError, match=r"confidence: expected shape \(2, 3\), got \(2, 2\)"):
        agreement(points, points, np.ones((2, 2)), 1)
