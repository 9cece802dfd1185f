"""What a teacher says of every person at full resolution, asked once and kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.data import Person, PoseDataset
from cdkd_ext.data.cached_views import image_fingerprint
from cdkd_ext.data.crops import VERSION
from cdkd_ext.errors import InputError, check
from cdkd_ext.files import replacing
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers.foreign import ForeignTeacher
from cdkd_ext.teachers.frozen import FrozenTeacher

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
_Teacher = FrozenTeacher | ForeignTeacher
_BATCH = 16
_SECONDS_BETWEEN_SAVES = 30.0


@dataclass(frozen=True)
class PseudoLabels:
    """A teacher's keypoints.

    Attributes:
        keypoints: (N, J, 2) in pixels of each person's image.
        confidence: (N, J) in [0, 1]; 0 where the teacher says nothing.
    """

    keypoints: Floats
    confidence: Floats

    def __len__(self) -> int:
        return len(self.keypoints)


def ask_teacher(
    teacher: _Teacher,
    identity: str,
    persons: Sequence[Person],
    folder: Path,
    *,
    padding: float | None = None,
    progress: Progress = lambda what, done, total: None,
) -> PseudoLabels:
    """Ask a teacher about people, on unchanged crops at its own resolution; what was asked before is read.

    Keypoints in the image follow every augmentation exactly, so they are asked for once per person, whatever the views.

    Args:
        teacher: whose joints are those of the network that learns.
        identity: tells the teacher, and how it is asked, from others; see `TeacherFile.identity`.
        persons: the people.
        folder: receives a file for these people and this teacher; one that was begun is gone on with.
        padding: how much larger than a person's box the crops are; None takes the teacher's own.
        progress: called with what is done, how far, and of how much.

    Raises:
        InputError: an image cannot be read, or the teacher's outputs are not as described.
    """
    joints = teacher.teacher_spec.joints
    assert joints is not None
    path = folder / f"keypoints-{_fingerprint(teacher, identity, persons, padding)}.npz"
    labels, done = _begun(path, len(persons), len(joints))
    saved = time.monotonic()
    dataset = _crops(teacher, joints, persons, padding)
    for start in range(done, len(persons), _BATCH):
        stop = min(start + _BATCH, len(persons))
        keypoints, confidence = _asked(teacher, dataset, range(start, stop))
        labels.keypoints[start:stop], labels.confidence[start:stop] = keypoints, confidence
        progress("asking the teacher", stop, len(persons))
        if stop == len(persons) or time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
            _save(path, labels, stop)
            saved = time.monotonic()
    return labels


def _crops(
    teacher: _Teacher, joints: JointSet, persons: Sequence[Person], padding: float | None
) -> PoseDataset:
    nothing = np.zeros((len(joints), 2), np.float32)
    unlabelled = [unlabelled_person(person, nothing) for person in persons]
    spec = teacher.teacher_spec
    return PoseDataset(
        unlabelled,
        joints,
        size=spec.input_size,
        padding=spec.padding if padding is None else padding,
        resample=spec.resample,
        unbiased=spec.unbiased_crop,
        labelled_fraction=0,
    )


def unlabelled_person(person: Person, nothing: Floats) -> Person:
    """A person whose annotations are left out, for (J, 2) zeros in place of keypoints."""
    return replace(person, keypoints=nothing, annotated=np.zeros(len(nothing), np.float32))


def _asked(teacher: _Teacher, dataset: PoseDataset, indices: Sequence[int]) -> tuple[Floats, Floats]:
    samples = [dataset[index] for index in indices]
    said = teacher.predict(torch.stack([sample["image"] for sample in samples]))
    to_image = torch.stack([sample["to_image"] for sample in samples])
    points = said.keypoints.cpu() @ to_image[:, :, :2].transpose(1, 2) + to_image[:, None, :, 2]
    known = torch.isfinite(points).all(-1)
    confidence = torch.where(known, said.confidence.cpu(), 0.0)
    return torch.nan_to_num(points).numpy(), confidence.numpy()


def _fingerprint(teacher: _Teacher, identity: str, persons: Sequence[Person], padding: float | None) -> str:
    spec = teacher.teacher_spec
    told: list[Any] = [VERSION, identity, padding or spec.padding, spec.resample, spec.unbiased_crop]
    told += [image_fingerprint(persons).hex(), [person.box.tolist() for person in persons]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _begun(path: Path, people: int, joints: int) -> tuple[PseudoLabels, int]:
    """What a file holds, and of how many people."""
    empty = PseudoLabels(np.zeros((people, joints, 2), np.float32), np.zeros((people, joints), np.float32))
    if not path.exists():
        return empty, 0
    try:
        with np.load(path, allow_pickle=False) as content:
            labels = PseudoLabels(content["keypoints"], content["confidence"])
            done = int(content["done"])
            fits = labels.keypoints.shape == empty.keypoints.shape and 0 <= done <= people
            check(fits, str(path), labels.keypoints.shape, f"shape {empty.keypoints.shape}")
    except InputError:
        raise
    # whatever a damaged file makes of numpy and zipfile: it is written anew
    except Exception:
        return empty, 0
    return labels, done


def _save(path: Path, labels: PseudoLabels, done: int) -> None:
    with replacing(path) as temporary:
        np.savez(temporary, keypoints=labels.keypoints, confidence=labels.confidence, done=done)
