"""Programs of torch.export."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.deployment.crop_decoder import CropDecoder, lowered
from cdkd_ext.inference import CropNetwork
from cdkd_ext.inference.crop_network import Array, transformed
from cdkd_ext.models import ModelSpec

METADATA = "metadata.json"


def write_program(decoder: CropDecoder, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write a decoder as a program in ATen's operators, with texts in its extra file ``metadata.json``."""
    torch.export.save(lowered(decoder), path, extra_files={METADATA: json.dumps(dict(metadata))})


class ProgramNetwork(CropNetwork):
    """A program that `write_program` wrote.

    Args:
        path: the file, of nobody but oneself: PyTorch unpickles some of it.
        spec: the description of its network, which knows its joints.
    """

    def __init__(self, path: str | os.PathLike[str], spec: ModelSpec) -> None:
        assert spec.joints is not None
        self.input_size, self.joints = spec.input_size, spec.joints
        self.padding, self.resample = spec.padding, spec.resample
        self._module = torch.export.load(path).module()

    @torch.no_grad()
    def __call__(self, crops: npt.NDArray[np.uint8], to_image: Array) -> tuple[Array, Array]:
        """See `CropNetwork`."""
        keypoints, scores = self._module(torch.from_numpy(crops))
        return transformed(keypoints.numpy(), to_image), scores.numpy()
