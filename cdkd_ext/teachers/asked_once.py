"""A teacher that is asked once about each person, for all views of that person."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass
class _Labels:
    """What a teacher said of people: keypoints (N, J, 2), confidence (N, J), and its joints' permutation of mirroring."""

    keypoints: Tensor
    confidence: Tensor
    flip: Tensor

    def move(self, device: torch.device) -> None:
        """Put all onto a device, where they stay."""
        if self.keypoints.device != device:
            self.keypoints, self.confidence, self.flip = (
                values.to(device) for values in (self.keypoints, self.confidence, self.flip)
            )


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
        joints, count = teacher.teacher_spec.joints, teacher.teacher_spec.num_joints
        assert joints is not None
        self._labels = _Labels(
            torch.empty(0, count, 2), torch.empty(0, count), torch.tensor(joints.flip_permutation)
        )
        self.teacher_spec = self._spec(input_size, num_bins)

    def _spec(self, input_size: tuple[int, int], num_bins: tuple[int, int] | None) -> TeacherSpec:
        spec = self.network.teacher_spec
        return TeacherSpec(
            input_size=input_size,
            num_joints=spec.num_joints,
            joints=spec.joints,
            num_bins=num_bins,
            padding=spec.padding,
            resample=spec.resample,
        )

    def for_student(self, input_size: tuple[int, int], num_bins: tuple[int, int] | None) -> AskedOnce:
        """The same for another student of the same people, who are not asked about again."""
        other = copy.copy(self)
        other.teacher_spec = self._spec(input_size, num_bins)
        return other

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
        self._labels.keypoints, self._labels.confidence = (
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
        labels = self._labels
        check(len(labels.keypoints) > 0, "index", "people before `ask`", "people who were asked about")
        labels.move(to_image.device)
        keypoints, confidence = labels.keypoints[index], labels.confidence[index]
        (a, b), (c, d) = (row.unbind(-1) for row in to_image[:, :, :2].unbind(1))
        determinant = (a * d - b * c)[:, None]
        mirrored = determinant < 0
        keypoints = torch.where(mirrored[..., None], keypoints[:, labels.flip], keypoints)
        confidence = torch.where(mirrored, confidence[:, labels.flip], confidence)
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
        teachers: that were asked about the same people, one for each of the students.
    """

    def __init__(self, samples: Any, *teachers: AskedOnce) -> None:
        self._samples, self._teachers = samples, teachers
        if hasattr(samples, "batch"):
            self.batch = samples.batch

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key | list[Key]) -> Any:
        return self._samples[key]

    def on_device(self, batch: Batch) -> Batch:
        """Add the teacher's output, for each of several students in his own bins."""
        if hasattr(self._samples, "on_device"):
            batch = self._samples.on_device(batch)
        if STUDENTS not in batch:
            return _taught(batch, self._teachers[0])
        parts = zip(batch[STUDENTS], self._teachers, strict=True)
        return {**batch, STUDENTS: [_taught(part, teacher) for part, teacher in parts]}


def _taught(part: Batch, teacher: AskedOnce) -> Batch:
    return {**part, "teacher_output": teacher.output(part["index"], part["to_image"])}
