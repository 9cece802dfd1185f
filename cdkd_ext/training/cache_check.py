"""What storing a teacher's outputs loses: the keypoints that are decoded from what comes back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdkd_ext.data import EvaluationSet, PoseDataset
from cdkd_ext.data.loading import load_people
from cdkd_ext.distillation import TeacherOutput, TeacherSpec
from cdkd_ext.errors import check, fail
from cdkd_ext.evaluation.accuracy import ACCURACY_NAMES, people_accuracy
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.teachers import ForeignTeacher
from cdkd_ext.teachers.compact import compact_columns, compact_output
from cdkd_ext.training.build import ViewTeacher, load_view_teacher, student_spec, teacher_joints
from cdkd_ext.training.config import DistillationConfig

Floats = npt.NDArray[np.floating]
_BATCH = 16
_SAME = 0.01  # pixels


@dataclass(frozen=True)
class StoredLoss:
    """What one way to store a teacher's outputs keeps.

    Attributes:
        name: "computed", which is not stored, "dense" or "compact".
        bytes: per view, of the distributions.
        accuracy: of keypoints at the highest bins, in percent; nan where no label can be compared.
        moved: part of the keypoints, in percent, that are elsewhere than those of what was computed.
        farthest: the largest distance of a keypoint in pixels of the teacher's crop.
        divergence: mean Kullback-Leibler divergence of a row from the computed one, in nats.
    """

    name: str
    bytes: float
    accuracy: float
    moved: float
    farthest: float
    divergence: float


@dataclass(frozen=True)
class CacheCheck:
    """What `check_cache` found.

    Attributes:
        teacher: the file.
        people: how many people were asked about.
        metric: name of the accuracy.
        stored: what was computed, and each way to store it.
    """

    teacher: str
    people: int
    metric: str
    stored: list[StoredLoss]

    def __str__(self) -> str:
        """A table for people."""
        heads = ("", "bytes a view", self.metric, "moved, %", "farthest, pixels", "divergence, nats")
        rows = [heads]
        for one in self.stored:
            numbers = (f"{one.bytes:.0f}", f"{one.accuracy:.2f}", f"{one.moved:.2f}", f"{one.farthest:.2f}")
            rows.append((one.name, *numbers, f"{one.divergence:.1e}"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join([f"{self.teacher}, {self.people} people, keypoints at the highest bins", *lines])


def check_cache(config: DistillationConfig, people: int = 300) -> CacheCheck:
    """Ask a run's teacher about people, and compare what comes back from each way to store it with what was computed.

    Nothing is written. The people are spread evenly over those to validate on, in plain crops; without a data set,
    people are drawn. All is deterministic.

    Args:
        config: the run.
        people: at most so many.

    Raises:
        InputError: as `prepare_views` does; also when there is nobody to validate on, or the teacher has no distributions.

    Example:
        ```python
        print(check_cache(DistillationConfig(teacher="movenet.onnx", data=DataConfig(root="lsp"))))
        ```
    """
    config.validate()
    check(people > 0, "people", people, "a positive number")
    accelerator = make_accelerator(config.cpu)
    with tempfile.TemporaryDirectory() as folder:
        # an eighth of the drawn people are to validate on
        data = replace(config.data, synthetic_people=min(config.data.synthetic_people, 8 * people))
        config = replace(config, data=data)
        found = load_people(data, Path(folder), teacher_joints=lambda: teacher_joints(config))
        if found.val is None:
            fail("data.val", "nothing", "people to validate on, whose labels tell what is lost")
        spec = student_spec(config, found.joints)
        teacher = load_view_teacher(config, spec, found.joints, accelerator)
        truth = _spread(found.val, people)
        crops = _crops(truth, teacher.teacher_spec, spec.padding)
        return CacheCheck(config.teacher, len(crops), _metric(truth), _compared(teacher, truth, crops))


def _spread(truth: EvaluationSet, most: int) -> EvaluationSet:
    count = len(truth.persons)
    chosen = sorted({int(index) for index in np.linspace(0, count - 1, min(most, count))})
    return replace(truth, persons=[truth.persons[index] for index in chosen])


def _crops(truth: EvaluationSet, spec: TeacherSpec, padding: float) -> PoseDataset:
    """What the teacher sees of the people."""
    check(
        spec.num_bins is not None, "teacher", "feature maps alone", "one with distributions, which are stored"
    )
    return PoseDataset(
        truth.persons,
        truth.joints,
        size=spec.input_size,
        padding=padding,
        resample=spec.resample,
        unbiased=spec.unbiased_crop,
    )


def _metric(truth: EvaluationSet) -> str:
    return ACCURACY_NAMES.get(truth.metric, "not measured")


def _compared(teacher: ViewTeacher, truth: EvaluationSet, crops: PoseDataset) -> list[StoredLoss]:
    """The losses of each way to store what the teacher says of the crops."""
    parts: dict[str, list[_Part]] = {}
    to_image: list[Tensor] = []
    for start in range(0, len(crops), _BATCH):
        samples = [crops[index] for index in range(start, min(start + _BATCH, len(crops)))]
        output = teacher(torch.stack([sample["image"] for sample in samples])).to("cpu")
        to_image += [sample["to_image"] for sample in samples]
        for name, (stored, size) in _stored(output).items():
            part = _Part(_keypoints(stored, teacher.teacher_spec), _divergences(output, stored), size)
            parts.setdefault(name, []).append(part)
    known = _known(teacher, len(truth.joints))
    affine = torch.stack(to_image).numpy()
    whole = {name: _Part.joined(some) for name, some in parts.items()}
    losses = []
    for name, part in whole.items():
        distance = np.linalg.norm(part.keypoints - whole["computed"].keypoints, axis=-1)[:, known]
        losses.append(
            StoredLoss(
                name,
                part.bytes,
                _accuracy(part.in_image(affine), truth, known),
                float(100 * (distance > _SAME).mean()),
                float(distance.max()),
                float(part.divergences[:, known].mean()),
            )
        )
    return losses


def _known(teacher: ViewTeacher, joints: int) -> npt.NDArray[np.bool_]:
    """(J,): the joints that a teacher says something of."""
    if isinstance(teacher, ForeignTeacher):
        return np.array([bool(sources) for sources in teacher.joint_map.sources])
    return np.ones(joints, bool)


@dataclass(frozen=True)
class _Part:
    """Of a batch: keypoints (B, J, 2) in pixels of the crops, divergences (B, J), and bytes per view."""

    keypoints: Floats
    divergences: Floats
    bytes: float

    @classmethod
    def joined(cls, parts: Sequence[_Part]) -> _Part:
        """All batches."""
        keypoints, divergences = (
            np.concatenate(values)
            for values in zip(*((part.keypoints, part.divergences) for part in parts), strict=True)
        )
        return cls(keypoints, divergences, parts[0].bytes)

    def in_image(self, affine: Floats) -> Floats:
        """Keypoints in pixels of the images, by maps (B, 2, 3)."""
        return self.keypoints @ affine[:, :, :2].transpose(0, 2, 1) + affine[:, None, :, 2]


def _stored(output: TeacherOutput) -> dict[str, tuple[TeacherOutput, float]]:
    """What comes back of the distributions, and their bytes per view, by the way that they are stored."""
    axes = [output.logits_x, output.logits_y]
    alone = TeacherOutput(logits_x=axes[0], logits_y=axes[1])
    halves = TeacherOutput(None, *(axis.half() for axis in axes if axis is not None))
    columns = compact_columns(alone, features=False)
    bytes_of = {
        "computed": _bytes([axis for axis in axes if axis is not None]),
        "dense": _bytes([value for value in halves if value is not None]),
        "compact": _bytes(list(columns.values())),
    }
    outputs = {"computed": alone, "dense": halves.widened(), "compact": compact_output(columns).widened()}
    return {name: (outputs[name], bytes_of[name]) for name in outputs}


def _bytes(tensors: Sequence[Tensor]) -> float:
    return sum(tensor.nbytes / len(tensor) for tensor in tensors)


def _keypoints(output: TeacherOutput, spec: TeacherSpec) -> Floats:
    """Keypoints (B, J, 2) at the highest bins, in pixels of the teacher's crop."""
    axes = []
    assert spec.num_bins is not None
    for axis, logits in enumerate((output.logits_x, output.logits_y)):
        assert logits is not None
        bins = logits.argmax(-1).double()
        axes.append(spec.bin_origin[axis] + bins * spec.input_size[1 - axis] / spec.num_bins[axis])
    return np.asarray(torch.stack(axes, -1).numpy())


def _divergences(given: TeacherOutput, stored: TeacherOutput) -> Floats:
    """Mean over the axes of the divergences (B, J) of stored rows from given ones."""
    found = []
    for one, other in ((given.logits_x, stored.logits_x), (given.logits_y, stored.logits_y)):
        assert one is not None and other is not None
        p, q = one.double().log_softmax(-1), other.double().log_softmax(-1)
        # nothing times minus infinity is nothing
        found.append(torch.where(p.exp() > 0, p.exp() * (p - q), 0.0).sum(-1))
    return np.asarray(torch.stack(found).mean(0).numpy())


def _accuracy(keypoints: Floats, truth: EvaluationSet, known: npt.NDArray[np.bool_]) -> float:
    if truth.metric == "none":
        return float("nan")
    return people_accuracy(keypoints, truth.persons, truth.joints, known, truth.metric)
