"""A teacher as a file: what a configuration names."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.checkpoints.native import file_hash
from cdkd_ext.models import PoseNetwork
from cdkd_ext.teachers.frozen import FrozenTeacher


@dataclass(frozen=True)
class TeacherFile:
    """A checkpoint of this package whose network teaches.

    Args:
        path: the checkpoint, or the folder of a run (its best checkpoint).
        precision: see `FrozenTeacher`.

    Example:
        ```python
        teacher = TeacherFile("runs/teacher", precision="auto").load()
        ```
    """

    path: str
    precision: str = "float32"

    def network(self) -> PoseNetwork:
        """Read the network.

        Raises:
            InputError: the file is missing or is no checkpoint of this package.
        """
        return load_model(self.path, "teacher")

    def load(self, device: torch.device | str | None = None) -> FrozenTeacher:
        """Read and freeze the network; raises as `network` does."""
        return FrozenTeacher(self.network(), device, self.precision)

    def identity(self, teacher: FrozenTeacher) -> str:
        """What tells the outputs of this file's teacher from those of another: the file's hash and the precision."""
        return f"{file_hash(self.path)} {teacher.precision}"
