"""The frozen teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from cdkd_ext.models import HeatmapOutput, PoseNetwork, PoseOutput, channels_last, normalize_images


class FrozenTeacher:
    """Runs a model without gradients, always in evaluation mode.

    It is no module on purpose: nothing can train it, wrap it, or save it with the student.

    Args:
        model: a pose model; it is switched to evaluation mode and its parameters are frozen.
        device: where it runs.
    """

    def __init__(self, model: PoseNetwork, device: torch.device | str = "cpu") -> None:
        self.model = channels_last(model.to(device)).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> PoseOutput | HeatmapOutput:
        """Return the outputs for uint8 images (B, 3, H, W), in float32 whatever the training's precision."""
        with torch.autocast(images.device.type, enabled=False):
            return self.model(normalize_images(images.contiguous(memory_format=torch.channels_last)))
