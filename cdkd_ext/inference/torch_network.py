"""A PyTorch network as what a predictor asks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.inference.crop_network import Array, CropNetwork
from cdkd_ext.inference.prediction import predict_crops
from cdkd_ext.joints import JointSet
from cdkd_ext.models import PoseNetwork, inference_copy
from cdkd_ext.teachers.frozen import PRECISIONS, fast_precision


class TorchNetwork(CropNetwork):
    """A pose network of this package, on its device.

    Args:
        model: how it is decoded, its joints and the padding of its crops are those of its description.
        joints: other joints than the description's, or those that it does not know.
        flip_test: average with the prediction for the mirrored crop.
        device: where it runs.
        precision: "float32", "bfloat16" or "float16" computes with folded batch norms and fused layers in it
            (`cdkd_ext.models.inference_copy`), "auto" in what the device is fastest in; None takes the network as it is.

    Raises:
        InputError: the joints are unknown, or are not as many as the network predicts; an unknown precision.
    """

    def __init__(
        self,
        model: PoseNetwork,
        joints: JointSet | None = None,
        *,
        flip_test: bool = True,
        device: torch.device | str = "cpu",
        precision: str | None = None,
    ) -> None:
        spec = model.spec
        joints = joints or spec.joints
        if joints is None:
            fail("joints", "nothing", "the joint set of a network that does not describe it")
        check(len(joints) == spec.num_joints, "joints", len(joints), f"the model's {spec.num_joints} joints")
        check_option("precision", precision, (None, *PRECISIONS))
        self.model = model.to(device).eval()
        self._computing = self.model
        if precision is not None:
            chosen = fast_precision(torch.device(device)) if precision == "auto" else precision
            self._computing = inference_copy(model, getattr(torch, chosen))
        self.input_size, self.joints, self.padding = spec.input_size, joints, spec.padding
        self.resample, self.unbiased_crop = spec.resample, spec.method.unbiased_crop
        self.score_threshold = codec_for(spec).score_threshold
        self._device = device
        self._permutation = torch.as_tensor(joints.flip_permutation, device=device) if flip_test else None

    @torch.no_grad()
    def __call__(self, crops: npt.NDArray[np.uint8], to_image: Array) -> tuple[Array, Array]:
        """See `CropNetwork`."""
        keypoints, scores = predict_crops(
            self._computing,
            torch.from_numpy(crops).permute(0, 3, 1, 2).to(self._device),
            torch.from_numpy(to_image).to(self._device),
            flip_permutation=self._permutation,
        )
        return keypoints.cpu().numpy(), scores.cpu().numpy()
