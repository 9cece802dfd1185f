"""Poses of people in images, from boxes."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import crop_matrix, invert_affine, region_from_box, warp_crop
from cdkd_ext.errors import check, fail
from cdkd_ext.images import Image, read_image
from cdkd_ext.inference.boxes import boxes_and_scores
from cdkd_ext.inference.predict import predict_crops
from cdkd_ext.joints import JointSet
from cdkd_ext.models import PoseNetwork
from cdkd_ext.models.spec import Resample


class _Joints(NamedTuple):
    keypoints: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


class Poses(_Joints):
    """Predicted poses; unpacked, they are `keypoints` and `scores`.

    Attributes:
        keypoints: float32 (N, J, 2), pixels of the image.
        scores: float32 (N, J): probabilities from SimCC, heights of the maxima from heatmaps.
        box_scores: float32 (N,): how sure the detector was of each person, 1 where the boxes do not say.
    """

    box_scores: npt.NDArray[np.float32]

    def __new__(
        cls,
        keypoints: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        box_scores: npt.NDArray[np.float32] | None = None,
    ) -> Poses:
        """Put the arrays together."""
        poses = super().__new__(cls, keypoints, scores)
        poses.box_scores = np.ones(len(keypoints), np.float32) if box_scores is None else box_scores
        return poses


class Predictor:
    """Crops, predicts and maps back.

    Args:
        model: a pose network; how it is decoded, its joints and the padding of its crops are those of its description.
        joints: other joints than the description's, or those that it does not know.
        flip_test: average with the prediction for the mirrored crop.
        padding: how much larger than the box the crop is; None takes what the network was trained with.
        resample: how a crop is made of a larger region; None takes what the network was trained with.
        device: where it runs.

    Raises:
        InputError: the joints are unknown, or are not as many as the network predicts.

    Example:
        ```python
        predictor = Predictor.load("runs/student")
        poses = predictor(read_image("street.jpg"), boxes=[(10, 5, 100, 120)])
        ```
    """

    def __init__(
        self,
        model: PoseNetwork,
        joints: JointSet | None = None,
        *,
        flip_test: bool = True,
        padding: float | None = None,
        resample: Resample | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        spec = model.spec
        joints = joints or spec.joints
        if joints is None:
            fail("joints", "nothing", "the joint set of a network that does not describe it")
        check(len(joints) == spec.num_joints, "joints", len(joints), f"the model's {spec.num_joints} joints")
        self.model = model.to(device).eval()
        self.joints = joints
        self.padding = spec.padding if padding is None else padding
        self.resample = resample or spec.resample
        self.device = device
        self._permutation = torch.as_tensor(joints.flip_permutation, device=device) if flip_test else None

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Predictor:
        """Predict with a checkpoint of this package, or with the best one of a run's folder.

        Args:
            path: the .safetensors file, or the folder.
            options: see `Predictor`.

        Raises:
            InputError: the file is missing, truncated, or does not say what network it is.
        """
        return cls(load_model(path, "path"), **options)

    @torch.no_grad()
    def __call__(self, image: Image | str | os.PathLike[str], boxes: Any) -> Poses:
        """Predict the pose of the person in each box.

        Args:
            image: RGB uint8 (H, W, 3), a PIL image, or the path of an image, which is turned upright as its EXIF
                orientation tag says: boxes and keypoints are in pixels of the upright image.
            boxes: N boxes (x, y, width, height) in pixels, in any sequence, array or tensor; with a fifth number it is
                the person's score. Mappings with ``bbox`` and perhaps ``score`` will do, and so will a single box.

        Raises:
            InputError: the image has another type or shape, or is empty; or a box is empty or not finite, or is no box:
                it is named by its index.
        """
        pixels = _pixels(image)
        places, box_scores = boxes_and_scores(boxes)
        if len(places) == 0:
            return Poses(
                np.zeros((0, len(self.joints), 2), np.float32), np.zeros((0, len(self.joints)), np.float32)
            )
        size = self.model.spec.input_size
        matrices = [crop_matrix(region_from_box(box, size, self.padding), size) for box in places]
        crops = np.stack([warp_crop(pixels, matrix, size, self.resample) for matrix in matrices])
        to_image = torch.tensor(np.stack([invert_affine(matrix) for matrix in matrices]), dtype=torch.float32)
        keypoints, scores = predict_crops(
            self.model,
            torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device),
            to_image.to(self.device),
            flip_permutation=self._permutation,
        )
        return Poses(keypoints.cpu().numpy(), scores.cpu().numpy(), box_scores)


def _pixels(image: Any) -> Image:
    """RGB uint8 (H, W, 3) of what a caller has for an image."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, upright=True)
    # PIL's images, without needing PIL
    if hasattr(image, "convert") and hasattr(image, "getbands"):
        image = np.asarray(image.convert("RGB"))
    expected = "RGB uint8 (H, W, 3), a PIL image or a path"
    check(isinstance(image, np.ndarray), "image", type(image).__name__, expected)
    check(
        image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8,
        "image",
        f"{image.dtype} {image.shape}",
        expected,
    )
    check(image.size > 0, "image", f"no pixels, {image.shape}", "an image with pixels")
    return image
