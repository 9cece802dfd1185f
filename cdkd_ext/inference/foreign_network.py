"""Somebody else's pose network as what a predictor asks."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.errors import fail
from cdkd_ext.inference.crop_network import Array, CropNetwork, transformed
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers.description import TeacherDescription
from cdkd_ext.teachers.file import TeacherFile
from cdkd_ext.teachers.foreign import ForeignTeacher
from cdkd_ext.teachers.options import TeacherOptions
from cdkd_ext.teachers.readers import input_size


class ForeignNetwork(CropNetwork):
    """A network of any origin that a teacher's description covers.

    Args:
        path: an ONNX file whose outputs a preset recognises, or a YAML file that describes one.
        joints: the joints to predict, which the network's are matched with by name; None takes its own. Those that it says
            nothing of are NaN, with score 0.
        flip_test: average with what it says of the mirrored crop.
        device: "cpu", or another for a GPU where onnxruntime has one.
        threads: of onnxruntime on a CPU; None leaves the choice to it.
        preset: the description of the file by name; None recognises it by its outputs.

    Attributes:
        joint_map: where the joints come from among the network's.
        flip_test: as given.

    Raises:
        InputError: a file is missing or malformed, or the network is not as described.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        joints: JointSet | None = None,
        *,
        flip_test: bool = True,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        preset: str | None = None,
    ) -> None:
        options = TeacherOptions(flip=flip_test, threads=threads, preset=preset)
        teacher = TeacherFile(str(path), options=options).load(device, joints)
        if not isinstance(teacher, ForeignTeacher):
            fail("path", path, "an ONNX file or a YAML file that describes one")
        self._teacher = teacher
        self.description: TeacherDescription = teacher.description
        self.joint_map, self.flip_test = teacher.joint_map, flip_test
        self.joints = teacher.joint_map.student
        self.input_size = input_size(teacher.description)
        self.padding, self.resample = teacher.description.padding, teacher.description.resample

    def __call__(self, crops: npt.NDArray[np.uint8], to_image: Array) -> tuple[Array, Array]:
        """See `CropNetwork`."""
        said = self._teacher.predict(torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous())
        keypoints = said.keypoints.float().cpu().numpy()
        return transformed(keypoints, to_image), said.confidence.float().cpu().numpy()
