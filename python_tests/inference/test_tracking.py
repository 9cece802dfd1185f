"""Identities by overlap, and smoothing."""

from __future__ import annotations

import numpy as np
import pytest

from cdkd_ext.inference import OneEuroFilter, Tracker
from cdkd_ext.inference.tracking import box_overlaps


def points(count):
    return np.zeros((count, 3, 2), np.float32)


def test_overlaps_are_intersections_over_unions():
    found = box_overlaps([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5]])
    np.testing.assert_allclose(found, [[1, 50 / 150, 0]])


def test_two_people_who_walk_past_each_other_keep_their_identities():
    tracker = Tracker()
    for step in range(20):
        # on lines of their own, most of a body's height apart
        boxes = np.array([[5 * step, 0, 20, 40], [100 - 5 * step, 30, 20, 40]])
        if step % 2:
            assert tracker(boxes[::-1], points(2), step / 25)[0].tolist() == [1, 0]
        else:
            assert tracker(boxes, points(2), step / 25)[0].tolist() == [0, 1]


def test_who_comes_new_and_who_was_away_long_gets_a_new_identity():
    tracker = Tracker()
    box = np.array([[0, 0, 10, 20]])
    assert tracker(box, points(1), 0.0)[0].tolist() == [0]
    assert tracker(np.array([[50, 0, 10, 20], [1, 0, 10, 20]]), points(2), 0.1)[0].tolist() == [1, 0]
    assert tracker(np.zeros((0, 4)), points(0), 0.2)[0].tolist() == []
    assert tracker(box, points(1), 0.5)[0].tolist() == [0]
    assert tracker(np.zeros((0, 4)), points(0), 0.6)[0].tolist() == []
    assert tracker(box, points(1), 9.0)[0].tolist() == [2]


def test_identities_alone_change_no_keypoint():
    keypoints = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    boxes = np.array([[0, 0, 10, 20], [50, 0, 10, 20]])
    tracker = Tracker()
    for step in range(3):
        assert (tracker(boxes, keypoints + step, step / 25)[1] == keypoints + step).all()


def test_smoothing_steadies_who_rests_and_follows_who_runs():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1.0, (200, 1, 3, 2)).astype(np.float32)
    resting, running = Tracker(smooth=True), Tracker(smooth=True)
    steadied, lags = [], []
    for step in range(200):
        box = np.array([[0, 0, 60, 120]])
        steadied.append(resting(box, 50 + noise[step], step / 25)[1])
        # 200 pixels a second: twice the height
        place = np.full((1, 3, 2), 8.0 * step, np.float32)
        found = running(box + np.array([8.0 * step, 0, 0, 0]), place, step / 25)[1]
        lags.append(float(np.abs(found - place).max()))
    assert np.std(steadied[50:]) < 0.6
    assert max(lags) < 16 and lags[-1] < 4


def test_the_filter_keeps_a_constant_and_the_first_value():
    smooth = OneEuroFilter()
    value = np.array([3.0, -2.0])
    for step in range(5):
        np.testing.assert_array_equal(smooth(value, step / 10), value)
    assert smooth(np.array([4.0, -2.0]), 0.5)[0] == pytest.approx(3.9, abs=0.1)


def test_a_step_between_the_cutoffs_is_exponential():
    smooth = OneEuroFilter(min_cutoff=1.0, beta=0.0)
    smooth(np.array([0.0]), 0.0)
    share = 2 * np.pi * 0.1 / (2 * np.pi * 0.1 + 1)
    assert smooth(np.array([1.0]), 0.1)[0] == pytest.approx(share)
    assert smooth(np.array([1.0]), 0.2)[0] == pytest.approx(1 - (1 - share) ** 2)


def test_a_value_that_is_not_known_is_forgotten():
    smooth = OneEuroFilter()
    found = [
        smooth(np.array([x, 2.0]), t)[0] for t, x in ((0, np.nan), (0.1, 1.0), (0.2, np.nan), (0.3, 1.0))
    ]
    np.testing.assert_array_equal(found, [np.nan, 1.0, np.nan, 1.0])
    assert smooth(np.array([np.inf, 2.0]), 0.4).tolist() == [np.inf, 2.0]
    assert 1 < smooth(np.array([1.5, 2.0]), 0.5)[0] < 1.5


def test_who_was_in_the_last_frame_is_known_however_long_ago_that_was():
    tracker = Tracker()
    keypoints = np.zeros((1, 3, 2), np.float32)
    found = [tracker([[10, 10, 20, 40]], keypoints, seconds)[0].tolist() for seconds in (0, 7, 14)]
    assert found == [[0], [0], [0]]
    # an empty frame in between is an absence of seven seconds
    tracker(np.zeros((0, 4)), keypoints[:0], 21)
    assert tracker([[10, 10, 20, 40]], keypoints, 28)[0].tolist() == [1]
