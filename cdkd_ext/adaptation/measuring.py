"""How well a network sees people at each resolution: accuracy where there are labels, agreement where there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdkd_ext.data import Person, PoseDataset
from cdkd_ext.data.crops import invert_affine, transform_points
from cdkd_ext.data.far_crops import crop_as_seen
from cdkd_ext.evaluation.accuracy import people_accuracy
from cdkd_ext.evaluation.agreement import agreement
from cdkd_ext.images import Image
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers import ForeignTeacher, JointMap
from cdkd_ext.teachers.pseudo_labels import PseudoLabels

Floats = npt.NDArray[np.floating]
HEIGHTS = (24, 32, 48, 64, 96, 128)
_BATCH = 32
_STREAM = 3  # of the faults that are measured


@dataclass(frozen=True)
class Watched:
    """People at whose crops a network is measured.

    Attributes:
        dataset: of plain crops.
        to_image: (N, 2, 3), from crop pixels to image pixels.
        keypoints: (N, J, 2), the teacher's, in pixels of the crops.
        confidence: (N, J).
    """

    dataset: PoseDataset
    to_image: Floats
    keypoints: Floats
    confidence: Floats

    @classmethod
    def of(cls, dataset: PoseDataset, labels: PseudoLabels) -> Watched:
        """The people of a data set of plain crops."""
        matrices = [dataset.view(index, 0).matrix for index in range(len(dataset))]
        points = [
            transform_points(own, matrix) for own, matrix in zip(labels.keypoints, matrices, strict=True)
        ]
        to_image = np.stack([invert_affine(matrix) for matrix in matrices])
        return cls(dataset, to_image, np.stack(points), labels.confidence)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the crops."""
        return self.dataset.size

    def crop(self, index: int, height: int | None, faults: float = 0.0) -> Image:
        """The crop of a person as it is seen at a resolution, None the full one, with camera faults of a strength."""
        matrix, image = self.dataset.view(index, 0).matrix, self.dataset.image(index)
        # the same for every network and resolution
        rng = np.random.default_rng([index, _STREAM])
        return crop_as_seen(image, matrix, self.size, height, self.dataset.resample, rng, faults)

    def predicted(
        self, predict: Callable[[Tensor], Tensor], height: int | None, faults: float = 0.0
    ) -> Floats:
        """Keypoints (N, J, 2) in pixels of the crops that a function finds at a resolution, with camera faults."""
        parts = []
        for start in range(0, len(self), _BATCH):
            indices = range(start, min(start + _BATCH, len(self)))
            crops = np.stack([self.crop(index, height, faults) for index in indices]).transpose(0, 3, 1, 2)
            parts.append(predict(torch.from_numpy(np.ascontiguousarray(crops))).cpu().numpy())
        return np.concatenate(parts)

    def agreement(self, keypoints: Floats) -> float:
        """How far keypoints (N, J, 2) in pixels of the crops agree with the teacher's; see `evaluation.agreement`."""
        return agreement(keypoints, self.keypoints, self.confidence, max(self.size))

    def in_image(self, keypoints: Floats) -> Floats:
        """Keypoints in pixels of the images."""
        return keypoints @ self.to_image[:, :, :2].transpose(0, 2, 1) + self.to_image[:, None, :, 2]


@dataclass(frozen=True)
class Measured:
    """What a network is worth at one resolution, in percent; nan where nothing can be measured.

    Attributes:
        height: of the crops; None is full resolution.
        faults: strength of the camera faults in them.
        accuracy: PCKh@0.5 or AR over the joints that the network has itself.
        agreement: with the teacher at full resolution.
        confidence: mean of the network's confidence.
    """

    height: int | None
    faults: float
    accuracy: float
    agreement: float
    confidence: float


def report_heights(size: tuple[int, int], learnt: list[int | None]) -> list[int | None]:
    """The resolutions of the report, those that were learnt among them; the last is full resolution.

    Args:
        size: (height, width) of the network's input.
        learnt: see `Resolutions.watched`.
    """
    heights = {one for one in (*HEIGHTS, *learnt) if one is not None and one < size[0]}
    return [*sorted(heights), None]


@dataclass(frozen=True)
class Labels:
    """The annotations of watched people.

    Attributes:
        persons: the people.
        joints: of the annotations.
        joint_map: where these joints come from among the network's.
        metric: "pckh", or "AP", for which average recall stands.
    """

    persons: Sequence[Person]
    joints: JointSet
    joint_map: JointMap
    metric: str

    def accuracy(self, keypoints: Floats) -> float:
        """Of the network's keypoints (N, J, 2) in pixels of the images, over the joints that it has itself, in percent."""
        sources = self.joint_map.sources
        first = [known[0] if known else 0 for known in sources]
        counted = np.array([len(known) == 1 for known in sources])
        return people_accuracy(keypoints[:, first], self.persons, self.joints, counted, self.metric)


def measured(
    watched: Watched,
    network: ForeignTeacher,
    height: int | None,
    labels: Labels | None,
    faults: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Measured, Floats, Floats]:
    """Measure a network at a resolution.

    Args:
        watched: the people.
        network: says the network's own joints.
        height: of the crops.
        labels: of the same people; None measures no accuracy.
        faults: strength of camera faults in the crops; see `cdkd_ext.data.add_camera_faults`.
        progress: called with the number of people of each batch.

    Returns:
        The metrics, the network's keypoints (N, J, 2) in pixels of the crops, and its confidence (N, J).
    """
    confidence: list[Tensor] = []

    def predict(crops: Tensor) -> Tensor:
        said = network.predict(crops)
        confidence.append(said.confidence.cpu())
        if progress is not None:
            progress(len(crops))
        return said.keypoints

    keypoints = watched.predicted(predict, height, faults)
    accuracy = float("nan") if labels is None else labels.accuracy(watched.in_image(keypoints))
    sure = torch.cat(confidence)
    metrics = Measured(height, faults, accuracy, watched.agreement(keypoints), float(sure.mean()))
    return metrics, keypoints, sure.numpy()
