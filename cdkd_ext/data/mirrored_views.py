"""Stored views mirrored as they are read: two for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.data.batches import Batch, Key


@dataclass(frozen=True)
class MirroredViews:
    """Which views are mirror images, and how a batch of them is made: view n + N is the mirror image of view n of N.

    Args:
        views: N, how many are stored.
        permutation: (J,), which joint each becomes.
        output: takes a teacher's output and (B,) bool, and returns it with these rows mirrored; None without a teacher.
    """

    views: int
    permutation: Sequence[int]
    output: Callable[[Any, Tensor], Any] | None = None

    def stored(self, keys: Sequence[Key]) -> tuple[list[Key], Tensor]:
        """The keys of the stored views, and (B,) bool, which of them are to be mirrored."""
        return (
            [(index, view % self.views) for index, view in keys],
            torch.tensor([view >= self.views for _, view in keys], dtype=torch.bool),
        )

    def samples(self, samples: Batch, mirrored: Tensor) -> Batch:
        """Mirror some of a batch's crops with their labels: pixel x becomes W - 1 - x.

        Args:
            samples: with the fields of `PoseDataset`'s samples, stacked.
            mirrored: (B,) bool.
        """
        order = torch.as_tensor(self.permutation)
        images, annotated = samples["image"], samples["annotated"]
        last = images.shape[-1] - 1
        swapped = annotated[:, order]
        x, y = samples["keypoints"][:, order].unbind(-1)
        keypoints = torch.stack(((last - x) * swapped, y), -1)
        to_image = samples["to_image"].clone()
        to_image[:, :, 2] += last * to_image[:, :, 0]
        to_image[:, :, 0] *= -1
        changed = {
            "image": images.flip(-1),
            "keypoints": keypoints,
            "annotated": swapped,
            "to_image": to_image,
        }
        return samples | {
            name: torch.where(mirrored.view(-1, *[1] * (value.dim() - 1)), value, samples[name])
            for name, value in changed.items()
        }
