"""What a predictor asks, whatever runs the network: poses in crops."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from cdkd_ext.joints import JointSet
from cdkd_ext.resampling import DEFAULT_RESAMPLE, Resample

Array = npt.NDArray[np.float32]


class CropNetwork(ABC):
    """A pose network that takes crops of people and says where their joints are.

    Attributes:
        input_size: (height, width) of the crops in pixels.
        joints: of the network, in its order.
        padding: how much larger than a person's box the crop is.
        resample: how a crop is made of a larger region, "area" or "linear"; see `cdkd_ext.data.warp_crop`.
        unbiased_crop: whether the centres of a crop's corner pixels lie on the edges of its region; see
            `cdkd_ext.data.crop_matrix`.
        score_threshold: joints whose score is below it are better not drawn.
    """

    input_size: tuple[int, int]
    joints: JointSet
    padding: float
    resample: Resample = DEFAULT_RESAMPLE
    unbiased_crop: bool = False
    score_threshold: float = 0.2

    @abstractmethod
    def __call__(self, crops: npt.NDArray[np.uint8], to_image: Array) -> tuple[Array, Array]:
        """Predict a batch.

        Args:
            crops: RGB uint8 (N, h, w, 3), N at least 1.
            to_image: float32 (N, 2, 3), crop pixels to pixels of the whole image.

        Returns:
            Keypoints float32 (N, J, 2) in pixels of the whole image, and scores float32 (N, J).
        """


def transformed(keypoints: Array, affine: Array) -> Array:
    """Apply maps (N, 2, 3) to the keypoints (N, J, 2) of each crop, in float32."""
    return np.asarray(keypoints @ affine[:, :, :2].transpose(0, 2, 1) + affine[:, None, :, 2], np.float32)
