"""Crops at drawn resolutions with a teacher's keypoints: what an adaptation learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cdkd_ext.adaptation.resolutions import Resolutions
from cdkd_ext.data import PoseDataset
from cdkd_ext.data.batches import EpochBatches, Key
from cdkd_ext.data.crops import transform_points, warp_crop
from cdkd_ext.data.dataset import View, use_one_thread_in_workers
from cdkd_ext.data.far_crops import crop_as_seen
from cdkd_ext.errors import check
from cdkd_ext.images import Image
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers.pseudo_labels import PseudoLabels

_STREAM = 2  # of what is drawn beside the region and the camera's faults


class AdaptationSamples(Dataset[dict[str, Tensor]]):
    """Views of people as they are seen from afar, perhaps by a bad camera, with the teacher's keypoints.

    ``samples[index, view]`` depends on (seed, index, view) alone. A sample holds

    - ``image``: (3, H, W) uint8, RGB, reduced and enlarged again;
    - ``full``: (3, H, W) uint8, the same crop at full resolution, with `full` only;
    - ``keypoints``: (J, 2) float32, pixels of the crop;
    - ``weights``: (J,) float32, the teacher's confidence; 0 outside of the crop;
    - ``index``: () int64.

    Args:
        dataset: the people, cropped for the network.
        labels: of the same people.
        joints: of the labels.
        resolutions: which to draw.
        full: add the crop at full resolution.

    Raises:
        InputError: there are labels of another number of people or joints.
    """

    def __init__(
        self,
        dataset: PoseDataset,
        labels: PseudoLabels,
        joints: JointSet,
        resolutions: Resolutions,
        *,
        full: bool = False,
    ) -> None:
        shape = labels.keypoints.shape
        check(
            shape == (len(dataset), len(joints), 2),
            "labels",
            shape,
            f"shape ({len(dataset)}, {len(joints)}, 2)",
        )
        self._dataset, self._labels, self._resolutions, self._full = dataset, labels, resolutions, full
        self._flip = np.array(joints.flip_permutation)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """Return a view of a person.

        Raises:
            InputError: the image cannot be read; the message names the file.
        """
        index, view = key
        use_one_thread_in_workers()
        drawn = self._dataset.view(index, view)
        image, size = self._dataset.image(index), self._dataset.size
        keypoints = transform_points(self._labels.keypoints[index], drawn.matrix)
        weights = self._labels.confidence[index]
        if drawn.region.flip:
            keypoints, weights = keypoints[self._flip], weights[self._flip]
        low, high = np.array([-0.5, -0.5]), np.array([size[1], size[0]]) - 0.5
        inside = ((keypoints >= low) & (keypoints <= high)).all(1)
        sample = {
            "image": _planes(self._seen(image, drawn)),
            "keypoints": torch.from_numpy(keypoints),
            "weights": torch.from_numpy(weights * inside),
            "index": torch.tensor(index),
        }
        if self._full:
            sample["full"] = _planes(warp_crop(image, drawn.matrix, size, self._dataset.resample))
        return sample

    def _seen(self, image: Image, drawn: View) -> Image:
        """The crop at the resolution that is drawn for a view."""
        dataset = self._dataset
        sequence = np.random.SeedSequence((dataset.seed, drawn.index, drawn.number), spawn_key=(_STREAM,))
        rng = np.random.Generator(np.random.Philox(sequence))
        height = self._resolutions.draw(rng)
        shift_x, shift_y = rng.random(2)
        return crop_as_seen(
            image,
            drawn.matrix,
            dataset.size,
            height,
            dataset.resample,
            rng,
            dataset.camera_faults,
            shift=(float(shift_x), float(shift_y)),
        )


class SteadyBatches(EpochBatches):
    """Batches of one endless shuffled sequence of people, in portions that the training calls epochs.

    Each person comes once before anybody comes again, with another view each time; which and in which order is a function
    of the seed alone.

    Args:
        people: indices of the people to draw from.
        batch_size: people per batch.
        steps: batches of a portion.
        seed: of the order.
    """

    def __init__(self, people: Sequence[int], batch_size: int, steps: int, *, seed: int) -> None:
        super().__init__(people, batch_size, seed=seed)
        self._steps = steps
        self._order: tuple[int, npt.NDArray[np.int64]] = (
            -1,
            self.people,
        )  # of the round that was asked for last

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.first, self._steps):
            start = (self.epoch * self._steps + step) * self.batch_size
            yield [self._key(place) for place in range(start, start + self.batch_size)]

    def _key(self, place: int) -> Key:
        round_, within = divmod(place, len(self.people))
        if self._order[0] != round_:
            self._order = round_, np.random.default_rng([self.seed, round_]).permutation(self.people)
        return int(self._order[1][within]), round_


def _planes(image: Image) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
