"""A network of some joints as one of others, which its own are matched with by name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cdkd_ext.inference.crop_network import Array, CropNetwork
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers.joint_map import JointMap


class MappedNetwork(CropNetwork):
    """What a network says of the joints of a data set that is labelled otherwise than the one it was trained on.

    Joints are matched by name and side, then by other names for them, then as the middle of two (`JointMap`). Those that the
    network says nothing of are NaN, with score 0.

    Args:
        network: with joints of its own.
        joints: to predict.

    Attributes:
        network: as given.
        joint_map: where the joints come from among the network's.

    Raises:
        InputError: no joint matches, or sides and mirror pairs contradict each other.
    """

    def __init__(self, network: CropNetwork, joints: JointSet) -> None:
        self.network = network
        self.joints = joints
        self.joint_map = JointMap.by_name(joints, network.joints, "joints of the network")
        self.input_size, self.padding = network.input_size, network.padding
        self.resample, self.unbiased_crop = network.resample, network.unbiased_crop
        self.score_threshold = network.score_threshold

    def __call__(self, crops: npt.NDArray[np.uint8], to_image: Array) -> tuple[Array, Array]:
        """See `CropNetwork`."""
        found, heights = self.network(crops, to_image)
        keypoints = np.full((len(found), len(self.joints), 2), np.nan, np.float32)
        scores = np.zeros((len(found), len(self.joints)), np.float32)
        for joint, sources in enumerate(self.joint_map.sources):
            if sources:
                keypoints[:, joint] = found[:, sources].mean(1)
                # two are as sure as the less sure of them
                scores[:, joint] = heights[:, sources].min(1)
        return keypoints, scores


def for_joints(network: CropNetwork, joints: JointSet) -> CropNetwork:
    """A network for a data set's joints: itself where it has these, else mapped by name.

    Raises:
        InputError: see `MappedNetwork`.
    """
    return network if network.joints.names == joints.names else MappedNetwork(network, joints)
