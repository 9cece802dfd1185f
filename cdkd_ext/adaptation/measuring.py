"""How well a network sees people at each resolution: accuracy where there are labels, agreement where there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdkd_ext.adaptation.pseudo_labels import PseudoLabels
from cdkd_ext.adaptation.resolutions import seen_from_afar
from cdkd_ext.data import Person, PoseDataset
from cdkd_ext.evaluation.accuracy import people_accuracy
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers import ForeignTeacher, JointMap

Floats = npt.NDArray[np.floating]
HEIGHTS = (24, 32, 48, 64, 96, 128)
SURE = 0.3  # confidence from which on a teacher's joint is worth agreeing with
NEAR = 0.05  # of the crop's longer side: about half a head
_BATCH = 32


@dataclass(frozen=True)
class Watched:
    """People whose crops are held at full resolution.

    Attributes:
        crops: (N, H, W, 3) uint8.
        to_image: (N, 2, 3), from crop pixels to image pixels.
        keypoints: (N, J, 2), the teacher's, in pixels of the crops.
        confidence: (N, J).
    """

    crops: npt.NDArray[np.uint8]
    to_image: Floats
    keypoints: Floats
    confidence: Floats

    @classmethod
    def of(cls, dataset: PoseDataset, labels: PseudoLabels) -> Watched:
        """The people of a data set of plain crops."""
        samples = [dataset[index] for index in range(len(dataset))]
        to_image = np.stack([sample["to_image"].numpy() for sample in samples]).astype(np.float64)
        inverse = np.linalg.inv(to_image[:, :, :2])
        points = labels.keypoints - to_image[:, None, :, 2]
        return cls(
            np.stack([sample["image"].permute(1, 2, 0).numpy() for sample in samples]),
            to_image,
            points @ inverse.transpose(0, 2, 1),
            labels.confidence,
        )

    def __len__(self) -> int:
        return len(self.crops)

    def seen_at(self, height: int | None, indices: slice = slice(None)) -> Tensor:
        """Crops (n, 3, H, W) uint8 as they are seen at a resolution; None is full resolution."""
        chosen = self.crops[indices]
        seen = chosen if height is None else np.stack([seen_from_afar(crop, height) for crop in chosen])
        return torch.from_numpy(np.ascontiguousarray(seen.transpose(0, 3, 1, 2)))

    def predicted(self, predict: Callable[[Tensor], Tensor], height: int | None) -> Floats:
        """Keypoints (N, J, 2) in pixels of the crops that a function finds at a resolution."""
        parts = [
            predict(self.seen_at(height, slice(start, start + _BATCH))).cpu().numpy()
            for start in range(0, len(self), _BATCH)
        ]
        return np.concatenate(parts)

    def agreement(self, keypoints: Floats) -> float:
        """The share, in percent, of the joints that the teacher is sure of that lie where it says.

        Near enough is a twentieth of the crop's longer side.
        """
        sure = self.confidence >= SURE
        if not sure.any():
            return float("nan")
        error = np.linalg.norm(keypoints - self.keypoints, axis=-1)
        return float(100 * (error[sure] <= NEAR * max(self.crops.shape[1:3])).mean())

    def in_image(self, keypoints: Floats) -> Floats:
        """Keypoints in pixels of the images."""
        return keypoints @ self.to_image[:, :, :2].transpose(0, 2, 1) + self.to_image[:, None, :, 2]


@dataclass(frozen=True)
class Measured:
    """What a network is worth at one resolution, in percent; nan where nothing can be measured.

    Attributes:
        height: of the crops; None is full resolution.
        accuracy: PCKh@0.5 or AR over the joints that the network has itself.
        agreement: with the teacher at full resolution.
        confidence: mean of the network's confidence.
    """

    height: int | None
    accuracy: float
    agreement: float
    confidence: float


def heights_below(height: int) -> list[int | None]:
    """The resolutions of the report for a network whose input has a height; the last is full resolution."""
    return [*(one for one in HEIGHTS if one < height), None]


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
    watched: Watched, network: ForeignTeacher, height: int | None, labels: Labels | None
) -> tuple[Measured, Floats]:
    """Measure a network at a resolution.

    Args:
        watched: the people.
        network: says the network's own joints.
        height: of the crops.
        labels: of the same people; None measures no accuracy.

    Returns:
        The metrics, and the network's keypoints (N, J, 2) in pixels of the crops.
    """
    confidence: list[Tensor] = []

    def predict(crops: Tensor) -> Tensor:
        said = network.predict(crops)
        confidence.append(said.confidence.cpu())
        return said.keypoints

    keypoints = watched.predicted(predict, height)
    accuracy = float("nan") if labels is None else labels.accuracy(watched.in_image(keypoints))
    values = Measured(height, accuracy, watched.agreement(keypoints), float(torch.cat(confidence).mean()))
    return values, keypoints
