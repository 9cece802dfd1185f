"""A network of some joints as one of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.inference import CropNetwork, MappedNetwork
from cdkd_ext.inference.mapped_network import for_joints
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS, JointSet


class Drawn(CropNetwork):
    """Says what was drawn for each joint."""

    def __init__(self, joints: JointSet) -> None:
        self.joints, self.input_size, self.padding = joints, (64, 48), 1.5
        self.resample, self.unbiased_crop, self.score_threshold = "linear", True, 0.3
        rng = np.random.default_rng(0)
        self.keypoints = rng.uniform(0, 64, (3, len(joints), 2)).astype(np.float32)
        self.scores = rng.random((3, len(joints))).astype(np.float32)

    def __call__(self, crops: np.ndarray, to_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.keypoints, self.scores


def test_joints_come_by_name_from_one_or_between_two_or_from_none() -> None:
    network = Drawn(COCO_JOINTS)
    mapped = MappedNetwork(network, MPII_JOINTS)
    keypoints, scores = mapped(np.zeros((3, 64, 48, 3), np.uint8), np.zeros((3, 2, 3), np.float32))
    assert keypoints.shape == (3, 16, 2) and keypoints.dtype == scores.dtype == np.float32
    own = {name: j for j, name in enumerate(COCO_JOINTS.names)}
    for j, name in enumerate(MPII_JOINTS.names):
        if name in own:
            np.testing.assert_array_equal(keypoints[:, j], network.keypoints[:, own[name]])
            np.testing.assert_array_equal(scores[:, j], network.scores[:, own[name]])
    hips = [own["left_hip"], own["right_hip"]]
    pelvis = MPII_JOINTS.names.index("pelvis")
    np.testing.assert_allclose(keypoints[:, pelvis], network.keypoints[:, hips].mean(1), rtol=1e-6)
    np.testing.assert_array_equal(scores[:, pelvis], network.scores[:, hips].min(1))
    top = MPII_JOINTS.names.index("head_top")
    assert np.isnan(keypoints[:, top]).all() and not scores[:, top].any()
    for name in ("input_size", "padding", "resample", "unbiased_crop", "score_threshold"):
        assert getattr(mapped, name) == getattr(network, name)
    assert mapped.joints == MPII_JOINTS and "pelvis from the middle of" in str(mapped.joint_map)


def test_a_network_of_these_joints_stays_as_it_is() -> None:
    network = Drawn(COCO_JOINTS)
    assert for_joints(network, replace(COCO_JOINTS, sigmas=None)) is network
    assert isinstance(for_joints(network, MPII_JOINTS), MappedNetwork)


def test_joints_that_are_nobody_s_are_refused() -> None:
    paws = JointSet(("left_paw", "right_paw"), (1, 0))
    with pytest.raises(InputError, match=r"joints of the network: expected joints of the data .*left_paw"):
        MappedNetwork(Drawn(COCO_JOINTS), paws)
