"""The trainable whole: the student and the modules that only its training needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cdkd_ext.data.batches import Batch
from cdkd_ext.distill import DistillationLoss, FeatureOutputs
from cdkd_ext.models import HeatmapOutput, PoseNetwork, SimCCOutput, channels_last, normalize_images


class PoseTask(nn.Module):
    """A student beside its losses, so that no optimiser and no wrapper can miss a parameter.

    Args:
        student: the network that is trained.
        loss: the total loss; without distillation terms this is plain training.
    """

    def __init__(self, student: PoseNetwork, loss: DistillationLoss) -> None:
        super().__init__()
        self.student = channels_last(student)
        self.loss = loss

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the named losses, "total" among them.

        Args:
            batch: image uint8 (B, 3, h, w), keypoints (B, J, 2), annotated (B, J), labelled (B,); with distillation
                terms also teacher_feature and, of a SimCC teacher, teacher_logits_x and teacher_logits_y.
            progress: share of the training done, 0 to 1.
        """
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        output = self.student(normalize_images(images))
        teacher: FeatureOutputs | None = None
        if "teacher_logits_x" in batch:
            teacher = SimCCOutput(
                batch["teacher_feature"], batch["teacher_logits_x"], batch["teacher_logits_y"]
            )
        elif "teacher_feature" in batch:
            teacher = HeatmapOutput(batch["teacher_feature"])
        return self.loss(output, teacher, batch["keypoints"], batch["annotated"], batch["labelled"], progress)

    def weight_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Parameter groups of the main optimiser: matrices and kernels decay, biases and norms do not."""
        adversarial = {id(parameter) for parameter in self.loss.adversarial_parameters()}
        parameters = [
            value for value in self.parameters() if value.requires_grad and id(value) not in adversarial
        ]
        return [
            {"params": [value for value in parameters if value.dim() > 1], "weight_decay": weight_decay},
            {"params": [value for value in parameters if value.dim() <= 1], "weight_decay": 0.0},
        ]
