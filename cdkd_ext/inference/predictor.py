"""Poses of people in pictures, from boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.data import crop_matrix, invert_affine, read_image, region_from_box, warp_crop
from cdkd_ext.errors import check
from cdkd_ext.inference import predict_crops
from cdkd_ext.joints import JointSet
from cdkd_ext.models import PoseNetwork


class Poses(NamedTuple):
    """Predicted poses.

    Attributes:
        keypoints: float32 (N, J, 2), pixels of the picture.
        scores: float32 (N, J): probabilities from SimCC, heights of the maxima from heatmaps.
    """

    keypoints: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


class Predictor:
    """Crops, predicts and maps back.

    Args:
        model: a pose model, as `cdkd_ext.training.load_model` returns it.
        joints: its joints.
        flip_test: average with the prediction for the mirrored crop.
        padding: how much larger than the box the crop is.
        device: where it runs.
    """

    def __init__(
        self,
        model: PoseNetwork,
        joints: JointSet,
        *,
        flip_test: bool = True,
        padding: float = 1.25,
        device: torch.device | str = "cpu",
    ) -> None:
        check(
            len(joints) == model.num_joints, "joints", len(joints), f"the model's {model.num_joints} joints"
        )
        self.model = model.to(device).eval()
        self.joints = joints
        self.padding = padding
        self.device = device
        self._permutation = torch.as_tensor(joints.flip_permutation, device=device) if flip_test else None

    @torch.no_grad()
    def __call__(self, image: npt.NDArray[np.uint8], boxes: Sequence[Sequence[float]]) -> Poses:
        """Predict the pose of the person in each box.

        Args:
            image: RGB uint8 (H, W, 3).
            boxes: N boxes (x, y, width, height) in pixels.
        """
        check(
            image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8,
            "image",
            f"{image.dtype} {image.shape}",
            "RGB uint8 (H, W, 3)",
        )
        if len(boxes) == 0:
            return Poses(
                np.zeros((0, len(self.joints), 2), np.float32), np.zeros((0, len(self.joints)), np.float32)
            )
        size = self.model.input_size
        matrices = [crop_matrix(region_from_box(box, size, self.padding), size) for box in boxes]
        crops = np.stack([warp_crop(image, matrix, size) for matrix in matrices])
        to_image = torch.tensor(np.stack([invert_affine(matrix) for matrix in matrices]), dtype=torch.float32)
        keypoints, scores = predict_crops(
            self.model,
            torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device),
            to_image.to(self.device),
            flip_permutation=self._permutation,
        )
        return Poses(keypoints.cpu().numpy(), scores.cpu().numpy())


def read_rgb(path: str) -> npt.NDArray[np.uint8]:
    """Read a picture as RGB uint8 (H, W, 3).

    Raises:
        InputError: the file is missing or broken.
    """
    return np.ascontiguousarray(read_image(path)[..., ::-1])
