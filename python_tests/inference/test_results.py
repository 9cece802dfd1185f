"""Scores of people, as files have them."""

from __future__ import annotations

import numpy as np
import pytest

from cdkd_ext.evaluation import instance_scores
from cdkd_ext.inference.results import person_scores


def test_the_scores_of_people_are_those_of_an_evaluation() -> None:
    rng = np.random.default_rng(0)
    scores, boxes = rng.random((40, 17)).astype(np.float32), rng.random(40).astype(np.float32)
    np.testing.assert_allclose(
        person_scores(scores, boxes, 0.4), instance_scores(boxes, scores, 0.4), rtol=1e-6
    )


def test_a_joint_that_is_not_known_does_not_count() -> None:
    found = person_scores(np.array([[0.9, 0.8, np.nan], [np.nan] * 3]), np.ones(2), 0.2)
    assert found == pytest.approx([0.85, 0])
