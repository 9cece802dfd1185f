"""Stored crops: each person once, larger than any network's crop, so that no image is decoded while training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from cdkd_ext.data.batches import Batch, Key, lost_workers_named
from cdkd_ext.data.cached_views import image_fingerprint, new_array, stored_array
from cdkd_ext.data.crops import VERSION as CROPS_VERSION
from cdkd_ext.data.crops import crop_matrix, invert_affine, region_from_box, warp_crop
from cdkd_ext.data.dataset import PoseDataset, use_one_thread_in_workers
from cdkd_ext.data.device_crops import crops_on_device
from cdkd_ext.errors import InputError, check
from cdkd_ext.files import new_folder, remove_leftovers
from cdkd_ext.images import read_image
from cdkd_ext.resampling import Resample

FloatMatrix = npt.NDArray[np.float64]


class StoredCrops(Dataset[Batch]):
    """Batches of stored crops and, drawn for each view, the map from the student's crop to the stored one.

    The views are those of `dataset`: the same draws, labels and coordinates. The images differ from its crops by
    one more bilinear sampling, and by black corners where a view leaves the stored region.

    Args:
        dataset: the training people and their augmentation.
        folder: where `build_stored_crops` wrote, for the same people, sizes and margin.
        margin: as given there.

    Raises:
        InputError: the stored crops are of other people or sizes, or the data set draws faults of cameras or other colours.

    Example:
        ```python
        crops = StoredCrops(dataset, build_stored_crops(dataset, Path("cache"), workers=8))
        loader = EpochLoader(crops, EpochBatches(range(len(dataset)), 128, seed=0), workers=2, pin_memory=True)
        for batch in loader.epoch(0):
            batch = loader.on_device({name: value.cuda(non_blocking=True) for name, value in batch.items()})
        ```
    """

    def __init__(self, dataset: PoseDataset, folder: Path, *, margin: float = 1.5) -> None:
        faults = dataset.camera_faults
        check(faults == 0, "camera_faults", faults, "0 for stored crops, which are made on the device")
        pixels = dataset.photometric
        check(
            not pixels.active, "photometric", pixels, "nothing for stored crops, which are made on the device"
        )
        biased = dataset.teacher_size is None or not (dataset.unbiased or dataset.teacher_unbiased)
        check(
            biased,
            "dataset",
            "unbiased crops beside a teacher's",
            "crops of HRNet's convention for both networks",
        )
        self.dataset = dataset
        self.margin = margin
        self.crops: npt.NDArray[np.uint8] = stored_array(folder / "crops.npy")
        expected = (len(dataset), 3, *stored_size(dataset, margin))
        check(self.crops.shape == expected, f"{folder / 'crops.npy'}", self.crops.shape, f"shape {expected}")

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return samples with stored crops; `crops_on_device` replaces these by the student's and the teacher's crops.

        Args:
            keys: B pairs of (index, view).

        Returns:
            Everything of `PoseDataset`'s samples but the images, stacked, and ``stored_image`` (B, 3, H, W) uint8,
            RGB, and ``to_stored`` (B, 2, 3) float32, from pixels of the student's crop to stored pixels.
        """
        index = np.array([index for index, _ in keys])
        return {**self.labels(keys), "stored_image": torch.from_numpy(self.crops[index])}

    def labels(self, keys: Sequence[Key]) -> Batch:
        """Return what `batch` does but for the stored crops."""
        views = [self.dataset.view(index, view) for index, view in keys]
        samples = [view.labels() for view in views]
        batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        maps = [
            _compose(_stored_matrix(self.dataset, view.index, self.margin), invert_affine(view.matrix))
            for view in views
        ]
        return {**batch, "to_stored": torch.from_numpy(np.stack(maps).astype(np.float32))}

    def __getitem__(self, keys: list[Key]) -> Batch:
        return self.batch(keys)

    def on_device(self, batch: Batch, *, teacher: bool = True) -> Batch:
        """Turn a batch into what `PoseDataset`'s samples would be, on the device where it is.

        Args:
            batch: of `batch`.
            teacher: whether to make the teacher's crops, where the data set has some.
        """
        dataset = self.dataset
        return crops_on_device(
            batch,
            dataset.size,
            dataset.teacher_size if teacher else None,
            samples=_samples(dataset, dataset.size, dataset.resample),
            teacher_samples=_samples(dataset, dataset.teacher_size or dataset.size, dataset.teacher_resample),
        )


def stored_size(dataset: PoseDataset, margin: float) -> tuple[int, int]:
    """(height, width) of the stored crops: the teacher's, or without one the student's, times `margin`."""
    height, width = dataset.teacher_size or dataset.size
    return round(height * margin), round(width * margin)


def _stored_resample(dataset: PoseDataset) -> Resample:
    """How stored crops are made: as those of the network whose density of pixels they have."""
    return dataset.resample if dataset.teacher_size is None else dataset.teacher_resample


def _samples(dataset: PoseDataset, size: tuple[int, int], resample: Resample) -> int:
    """Samples on a side of a crop's pixel: as many as the pixel covers of the stored ones in the smallest view."""
    if resample == "linear":
        return 1
    height = (dataset.teacher_size or dataset.size)[0]
    smallest = 1 + (dataset.augmentation.scale if dataset.augmentation else 0.0)
    return math.ceil(height / size[0] * smallest)


def build_stored_crops(dataset: PoseDataset, folder: Path, *, margin: float = 1.5, workers: int = 0) -> Path:
    """Store one crop per person; return the folder, reused where it exists.

    A stored crop has the pixel density of the teacher's unaugmented crop (without a teacher, the student's) and shows
    `margin` times as much in both directions.

    Args:
        dataset: the people; its augmentation plays no part.
        folder: parent of the stored folder, whose name is a fingerprint of everything that goes in.
        margin: how much more than the unaugmented region is stored, at least 1. The corners of a view that is
            enlarged and turned can lie outside, where they are black.
        workers: processes that decode images.

    Raises:
        InputError: the margin is below 1, or an image cannot be read; the message names the file.

    Example:
        ```python
        folder = build_stored_crops(dataset, Path("cache"), workers=8)
        ```
    """
    check(margin >= 1, "margin", margin, "a number of at least 1")
    target = folder / f"crops-{_fingerprint(dataset, margin)}"
    remove_leftovers(target)
    if not target.is_dir():
        try:
            with new_folder(target) as temporary:
                _write(dataset, margin, temporary / "crops.npy", workers)
        except InputError:
            # another run may have finished the same folder first
            if not target.is_dir():
                raise
    return target


def _fingerprint(dataset: PoseDataset, margin: float) -> str:
    digest = hashlib.sha256(image_fingerprint(dataset.persons))
    for person in dataset.persons:
        digest.update(np.ascontiguousarray(person.box, dtype=np.float64).tobytes())
    aspect = dataset.size[0] / dataset.size[1]
    settings = [
        aspect,
        stored_size(dataset, margin),
        dataset.padding,
        margin,
        CROPS_VERSION,
        _stored_resample(dataset),
    ]
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()[:16]


class _Unaugmented(Dataset[torch.Tensor]):
    def __init__(self, dataset: PoseDataset, margin: float) -> None:
        self.dataset = dataset
        self.margin = margin

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        use_one_thread_in_workers()
        person = self.dataset.persons[index]
        image = read_image(person.image_path, person.image_size, upright=person.upright)
        matrix = _stored_matrix(self.dataset, index, self.margin)
        size = stored_size(self.dataset, self.margin)
        crop = warp_crop(image, matrix, size, _stored_resample(self.dataset))
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))


def _write(dataset: PoseDataset, margin: float, path: Path, workers: int) -> None:
    shape = (len(dataset), 3, *stored_size(dataset, margin))
    array = new_array(path, np.uint8, shape)
    loader = DataLoader(_Unaugmented(dataset, margin), batch_size=None, num_workers=workers)
    with lost_workers_named():
        for index, crop in enumerate(loader):
            array[index] = crop
    array.flush()


def _stored_matrix(dataset: PoseDataset, index: int, margin: float) -> FloatMatrix:
    """(2, 3), image pixels to stored pixels."""
    region = region_from_box(dataset.persons[index].box, dataset.size, dataset.padding)
    size = (region.size[0] * margin, region.size[1] * margin)
    return crop_matrix(replace(region, size=size), stored_size(dataset, margin))


def _compose(outer: FloatMatrix, inner: FloatMatrix) -> FloatMatrix:
    """(2, 3), first `inner`, then `outer`."""
    linear = outer[:, :2]
    return np.column_stack([linear @ inner[:, :2], linear @ inner[:, 2] + outer[:, 2]])
