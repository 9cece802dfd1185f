"""A network with everything around it that a user of its crops would have to write."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import check
from cdkd_ext.inference.prediction import in_float32
from cdkd_ext.models import PoseNetwork
from cdkd_ext.ops.decompositions import decompositions


class CropDecoder(nn.Module):
    """From crops as they are to keypoints: normalisation, network, softmax and decoding.

    Args:
        network: its parameters' type is what it computes in; decoding is in float32.
        flip_test: average with the prediction for the mirrored crop; the network has to know its joints.

    Raises:
        InputError: the joints of a flip test are not known, or the head's decoding cannot be traced.
    """

    def __init__(self, network: PoseNetwork, *, flip_test: bool = False) -> None:
        super().__init__()
        joints = network.spec.joints
        check(
            joints is not None or not flip_test, "flip_test", "no joints", "a network that knows its joints"
        )
        self.permutation: Tensor | None
        self.network = network.eval()
        self._codec = codec_for(network.spec)
        expected = "one whose decoding is a graph of tensors"
        check(self._codec.traceable, "network", f"the head {network.head}", expected)
        permutation = None if joints is None or not flip_test else torch.tensor(joints.flip_permutation)
        self.register_buffer("permutation", permutation)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            images: RGB uint8 (N, h, w, 3).

        Returns:
            Keypoints float32 (N, J, 2), x and y in pixels of the crops, and scores float32 (N, J).
        """
        crops = images.permute(0, 3, 1, 2)
        output, flipped = in_float32(self.network(crops)), None
        if self.permutation is not None:
            flipped = in_float32(self.network(crops.flip(-1))), self.permutation
        keypoints, scores = self._codec.decode(output, flipped=flipped)
        return keypoints.float(), scores.float()


@torch.no_grad()
def lowered(decoder: CropDecoder) -> ExportedProgram:
    """The program of a decoder for any number of crops, in ATen's operators alone."""
    height, width = decoder.network.input_size
    # a batch of one would be taken for a constant
    crops = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # of torch about itself
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(decoder, (crops,), dynamic_shapes=({0: Dim("batch")},))
        return program.run_decompositions(decompositions())
