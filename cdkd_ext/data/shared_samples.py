"""Samples of the same people and views for several students, with what they share loaded once."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from cdkd_ext.data.batches import Batch, Key
from cdkd_ext.data.dataset import PoseDataset, use_one_thread_in_workers
from cdkd_ext.data.stored_crops import StoredCrops
from cdkd_ext.errors import check

STUDENTS = "students"


class SharedImages(Dataset[dict[str, list[dict[str, torch.Tensor]]]]):
    """A sample for each of several data sets of the same people, cropped from one reading of the image.

    Args:
        datasets: of the same people, draws and regions; only sizes differ. The teacher's crops, if any, come with the first
            one's samples alone.

    Raises:
        InputError: the people, their augmentation, the seed, the padding or the crops' aspect ratio differ.

    Example:
        ```python
        shared = SharedImages([dataset_of_32_pixels, dataset_of_64_pixels])
        small, large = shared[index, view]["students"]
        ```
    """

    def __init__(self, datasets: Sequence[PoseDataset]) -> None:
        check(len(datasets) > 0, "datasets", "none", "at least one")
        check_alike(datasets)
        self.datasets = list(datasets)

    def __len__(self) -> int:
        return len(self.datasets[0])

    def __getitem__(self, key: Key) -> dict[str, list[dict[str, torch.Tensor]]]:
        """Return the samples of a view of a person, one per data set, under "students"."""
        use_one_thread_in_workers()
        index, view = key
        drawn = [dataset.view(index, view) for dataset in self.datasets]
        image = self.datasets[0].image(index)
        samples = enumerate(zip(self.datasets, drawn, strict=True))
        return {STUDENTS: [dataset.crops(image, own, teacher=i == 0) for i, (dataset, own) in samples]}


class SharedBatches(Dataset[Batch]):
    """A batch for each of several sources of batches; stored crops are read and sent to the device once.

    Args:
        sources: `FixedViews`, or `StoredCrops`, of the same people and draws. What only the first has, such as a
            teacher's outputs, is for all.
    """

    def __init__(self, sources: Sequence[Any]) -> None:
        check(len(sources) > 0, "sources", "none", "at least one")
        self.sources = list(sources)

    def __len__(self) -> int:
        return len(self.sources[0])

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the batches of the (index, view) keys, one per source, under "students"."""
        first, *others = self.sources
        return {STUDENTS: [first.batch(keys), *(_without_images(source, keys) for source in others)]}

    def __getitem__(self, keys: list[Key]) -> Batch:
        return self.batch(keys)

    def on_device(self, batch: Batch) -> Batch:
        """Do what is left to do once the batches are on their device; see `StoredCrops.on_device`."""
        batches = batch[STUDENTS]
        if not isinstance(self.sources[0], StoredCrops):
            if not self.sources[0].mirrors:
                return batch
            # crops of different sizes mirror at different places, and so do a teacher's outputs for them
            taught = {name: value for name, value in batches[0].items() if name == "teacher_output"}
            pairs = zip(self.sources, batches, strict=True)
            return {STUDENTS: [source.on_device({**own, **taught}) for source, own in pairs]}
        stored = batches[0]["stored_image"]
        batches = [{**own, "stored_image": stored} for own in batches]
        numbered = enumerate(zip(self.sources, batches, strict=True))
        return {STUDENTS: [source.on_device(own, teacher=i == 0) for i, (source, own) in numbered]}


def _without_images(source: Any, keys: Sequence[Key]) -> Batch:
    return source.labels(keys) if isinstance(source, StoredCrops) else source.batch(keys)


def check_alike(datasets: Sequence[PoseDataset]) -> None:
    """Check that data sets show the same people in the same regions, in crops of one shape.

    Raises:
        InputError: the people, their augmentation, the seed, the padding or the crops' aspect ratio differ.
    """
    first = datasets[0]
    for i, other in enumerate(datasets[1:], 1):
        same = len(other) == len(first) and all(map(operator.is_, other.persons, first.persons))
        check(same, f"datasets[{i}].persons", "other people", "those of the first data set")
        for name in ("joints", "augmentation", "seed", "labelled_fraction", "padding"):
            got, expected = getattr(other, name), getattr(first, name)
            check(got == expected, f"datasets[{i}].{name}", got, f"{expected}, as of the first data set")
        (height, width), size = first.size, other.size
        check(
            height * size[1] == width * size[0],
            f"datasets[{i}].size",
            size,
            f"the aspect ratio of {first.size}, which the first data set has",
        )
