"""A teacher that is asked once about each person, for all views of that person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.data import Person
from cdkd_ext.data.batches import Batch, Key
from cdkd_ext.data.shared_samples import STUDENTS
from cdkd_ext.distillation import TeacherOutput, TeacherSpec
from cdkd_ext.errors import check, fail
from cdkd_ext.teachers.foreign import ForeignTeacher, checked_confidence, drawn_gaussians
from cdkd_ext.teachers.pseudo_labels import Progress, ask_teacher
from cdkd_ext.teachers.readers import Readout


class AskedOnce:
    """Keypoints that a network finds on the whole crop of a person, as a teacher's output for any view of that person.

    Keypoints in the image follow every scale, rotation and mirroring exactly, so new views cost no pass of the network. The
    targets are Gaussians around them, in the student's own bins.

    Args:
        teacher: asked about each person, for the student's joints.
        input_size: (height, width) of the student's crops.
        num_bins: the student's classes, or its heatmaps' cells (x, y); None of a student without either.

    Attributes:
        network: as given.
        teacher_spec: of its outputs, which are for the student's own crops.
        joint_map: where the student's joints come from.

    Example:
        ```python
        teacher = AskedOnce(TeacherFile("movenet.onnx").load("cpu", joints), (32, 32), (64, 64))
        teacher.ask("movenet, flip", dataset.persons, Path("cache"))
        output = teacher.output(batch["index"], batch["to_image"])
        ```
    """

    def __init__(
        self, teacher: ForeignTeacher, input_size: tuple[int, int], num_bins: tuple[int, int] | None
    ) -> None:
        self.network = teacher
        self.joint_map = teacher.joint_map
        spec = teacher.teacher_spec
        self.teacher_spec = TeacherSpec(
            input_size=input_size,
            num_joints=spec.num_joints,
            joints=spec.joints,
            num_bins=num_bins,
            padding=spec.padding,
            resample=spec.resample,
        )
        assert spec.joints is not None
        self._flip = torch.tensor(spec.joints.flip_permutation)
        self._keypoints, self._confidence = (
            torch.empty(0, spec.num_joints, 2),
            torch.empty(0, spec.num_joints),
        )

    def ask(
        self,
        identity: str,
        persons: Sequence[Person],
        folder: Path,
        *,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        """Ask about people, whose places are the indices of `output`; see `ask_teacher` for the arguments and errors."""
        labels = ask_teacher(self.network, identity, persons, folder, progress=progress)
        self._keypoints, self._confidence = (
            torch.from_numpy(values) for values in (labels.keypoints, labels.confidence)
        )

    def output(self, index: Tensor, to_image: Tensor) -> TeacherOutput:
        """Return the output for views of people, on the device of `to_image`.

        Args:
            index: (B,) int64, which people.
            to_image: (B, 2, 3) float32, from pixels of the student's crops to those of the images.

        Raises:
            InputError: nobody was asked about.
        """
        check(len(self._keypoints) > 0, "index", "people before `ask`", "people who were asked about")
        if self._keypoints.device != to_image.device:
            self._keypoints, self._confidence, self._flip = (
                values.to(to_image.device) for values in (self._keypoints, self._confidence, self._flip)
            )
        keypoints, confidence = self._keypoints[index], self._confidence[index]
        (a, b), (c, d) = (row.unbind(-1) for row in to_image[:, :, :2].unbind(1))
        determinant = (a * d - b * c)[:, None]
        mirrored = determinant < 0
        keypoints = torch.where(mirrored[..., None], keypoints[:, self._flip], keypoints)
        confidence = torch.where(mirrored, confidence[:, self._flip], confidence)
        x, y = (keypoints - to_image[:, None, :, 2]).unbind(-1)
        inverse = [value[:, None] / determinant for value in (d, -b, -c, a)]
        points = [inverse[0] * x + inverse[1] * y, inverse[2] * x + inverse[3] * y]
        said = Readout(torch.stack(points, -1), confidence)
        options, spec = self.network.options, self.teacher_spec
        confidence = checked_confidence(said, spec.input_size, options)
        if spec.num_bins is None:
            return TeacherOutput(confidence=confidence)
        logits = drawn_gaussians(said, confidence, spec, spec.num_bins, options)
        return TeacherOutput(None, *logits, confidence)

    def __call__(self, images: Tensor) -> TeacherOutput:
        """Crops alone do not tell whose they are.

        Raises:
            InputError: always.
        """
        fail("teacher_options.ask", "people, for crops without their people", "views")


class TaughtSamples:
    """Samples for a loader that get a teacher's output, asked once about each person, when they are on the device.

    Args:
        samples: what `EpochLoader` takes.
        teacher: that was asked about the same people.
    """

    def __init__(self, samples: Any, teacher: AskedOnce) -> None:
        self._samples, self._teacher = samples, teacher
        if hasattr(samples, "batch"):
            self.batch = samples.batch

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key | list[Key]) -> Any:
        return self._samples[key]

    def on_device(self, batch: Batch) -> Batch:
        """Add the teacher's output; of several students' parts to the first, which speaks for all."""
        if hasattr(self._samples, "on_device"):
            batch = self._samples.on_device(batch)
        if STUDENTS not in batch:
            return self._taught(batch)
        first, *others = batch[STUDENTS]
        return {**batch, STUDENTS: [self._taught(first), *others]}

    def _taught(self, part: Batch) -> Batch:
        return {**part, "teacher_output": self._teacher.output(part["index"], part["to_image"])}
