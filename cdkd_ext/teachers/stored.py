"""A teacher's outputs for fixed views, computed once and read by every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cdkd_ext.data.batches import Key
from cdkd_ext.data.cached_views import StoredArrays, store_views
from cdkd_ext.data.dataset import PoseDataset
from cdkd_ext.distillation import TeacherOutput


class StoredOutputs:
    """Reads a teacher's outputs for (index, view) keys.

    Args:
        folder: where `build_teacher_outputs` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._arrays = StoredArrays(folder)

    def __call__(self, keys: Sequence[Key]) -> TeacherOutput:
        """Return the output for the keys, one row each, in float16 as stored; `TeacherOutput.widened` makes it float32.

        `DistillationTask` does that on the device: the way there is half as long.
        """
        return TeacherOutput(**self._arrays.read(keys))


def build_teacher_outputs(
    dataset: PoseDataset,
    views: int,
    folder: Path,
    teacher: Callable[[Tensor], TeacherOutput],
    identity: str,
    *,
    workers: int = 0,
) -> Path:
    """Store a teacher's outputs for `views` views of every person; return the folder, reused where it exists.

    They are stored in half precision, which a trained teacher's outputs fit; a fresh network's may be too small.

    Args:
        dataset: the training people, with `teacher_size`.
        views: number of views per person.
        folder: parent of the stored folder, whose name is a fingerprint of everything that goes in.
        teacher: returns its output for uint8 images (B, 3, H, W).
        identity: what tells this teacher from another, such as a hash of its file with its precision.
        workers: processes that load images.

    Example:
        ```python
        folder = build_teacher_outputs(dataset, 4, Path("cache"), FrozenTeacher(network), "w32, 2024-03")
        outputs = StoredOutputs(folder)
        ```
    """

    def compute(samples: dict[str, Tensor]) -> dict[str, Tensor]:
        output = teacher(samples["teacher_image"])._asdict()
        return {name: value.to("cpu", torch.float16) for name, value in output.items() if value is not None}

    return store_views(
        dataset,
        views,
        folder,
        "teacher",
        compute,
        workers=workers,
        teacher=identity,
        teacher_size=dataset.teacher_size,
        teacher_resample=dataset.teacher_resample,
    )
