"""A tuple of two that has three arrays."""

from __future__ import annotations

import copy
import pickle

import numpy as np

from cdkd_ext.inference import Poses


def test_copies_keep_the_scores_of_the_boxes() -> None:
    poses = Poses(
        np.zeros((2, 3, 2), np.float32), np.ones((2, 3), np.float32), np.array([0.5, 0.7], np.float32)
    )
    keypoints, scores = poses
    assert keypoints is poses.keypoints and scores is poses.scores
    for other in (copy.deepcopy(poses), pickle.loads(pickle.dumps(poses)), poses._replace(scores=scores * 2)):
        np.testing.assert_array_equal(other.box_scores, poses.box_scores)
        np.testing.assert_array_equal(other.keypoints, keypoints)
    assert poses._replace(scores=scores * 2).scores.min() == 2
    assert poses._replace(box_scores=np.zeros(2, np.float32)).box_scores.max() == 0
