"""The frozen teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from cdkd_ext._C import cpu_features
from cdkd_ext.errors import check_option
from cdkd_ext.models import HeatmapOutput, PoseNetwork, SimCCOutput, inference_copy, normalize_images

PRECISIONS = ("auto", "float32", "bfloat16")


class FrozenTeacher:
    """Runs a model without gradients, always in evaluation mode.

    It is no module on purpose: nothing can train it, wrap it, or save it with the student.

    Args:
        model: a pose model; it is switched to evaluation mode and its parameters are frozen.
        device: where it runs.
        precision: what the backbone computes in, "float32" or "bfloat16"; "auto" is bfloat16 on a CPU with
            instructions for it (AVX-512 BF16), where it takes half the time, and float32 elsewhere.

    Attributes:
        model: the model as it came.
        precision: "float32" or "bfloat16".
    """

    def __init__(
        self, model: PoseNetwork, device: torch.device | str = "cpu", precision: str = "float32"
    ) -> None:
        check_option("precision", precision, PRECISIONS)
        self.model = model.to(device).eval().requires_grad_(False)
        if precision == "auto":
            native = torch.device(device).type == "cpu" and cpu_features().get("avx512_bf16", False)
            precision = "bfloat16" if native else "float32"
        self.precision = precision
        self._network = inference_copy(self.model, getattr(torch, precision))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> SimCCOutput | HeatmapOutput:
        """Return the outputs for uint8 images (B, 3, H, W), in float32 whatever the training's precision."""
        with torch.autocast(images.device.type, enabled=False):
            return self._network(normalize_images(images.contiguous(memory_format=torch.channels_last)))
