"""A network with everything around it that a user of its crops would have to write."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import check
from cdkd_ext.models import PoseNetwork
from cdkd_ext.ops.decompositions import decompositions


class CropDecoder(nn.Module):
    """From crops as they are to keypoints: normalisation, network, softmax and decoding.

    Args:
        network: its parameters' type is what it computes in; decoding is in float32.
        flip_test: average with the prediction for the mirrored crop; the network has to know its joints.

    Raises:
        InputError: the joints of a flip test are not known.
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
        output, flipped = self._asked(crops), None
        if self.permutation is not None:
            flipped = self._asked(crops.flip(-1)), self.permutation
        return self._codec.decode(output, flipped=flipped)

    def _asked(self, crops: Tensor) -> Any:
        output = self.network(crops)
        # some methods' outputs have parts that are empty outside of training
        return type(output)(*(part.float() if isinstance(part, Tensor) else part for part in output))


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
