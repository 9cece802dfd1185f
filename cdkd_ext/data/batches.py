"""Which people form which batch: a function of the seed, the epoch and the process alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

Key = tuple[int, int]
Batch = dict[str, torch.Tensor]


class EpochBatches(Sampler[list[Key]]):
    """Shuffled batches of (index, view) keys; each process takes every `processes`-th batch.

    Every process sees the same number of batches, so the last, smaller ones are left out where there are several
    batches, and the people in them change from epoch to epoch.

    Args:
        people: indices of the people to draw from.
        batch_size: people per batch.
        seed: of the order.
        views: number of fixed views per person; 0 gives every epoch a view of its own.
        rank: number of this process.
        processes: how many processes share the epoch.
    """

    def __init__(
        self,
        people: Sequence[int],
        batch_size: int,
        *,
        seed: int,
        views: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.people = np.asarray(people, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.views = views
        self.rank = rank
        self.processes = processes
        self.epoch = 0

    def __len__(self) -> int:
        return max(1, len(self.people) // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[Key]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.people)
        views = (
            generator.integers(self.views, size=len(order)) if self.views else np.full(len(order), self.epoch)
        )
        for step in range(len(self)):
            # wraps around where there are fewer people than one batch per process
            start = (step * self.processes + self.rank) * self.batch_size % len(order)
            places = (start + np.arange(min(self.batch_size, len(order)))) % len(order)
            yield list(zip(order[places].tolist(), views[places].tolist(), strict=True))


class _Batched(Dataset[Batch]):
    """Turns a data set of samples into one of batches, keyed by a list of keys."""

    def __init__(self, samples: Dataset[dict[str, torch.Tensor]]) -> None:
        self.samples = samples

    def __getitem__(self, keys: list[Key]) -> Batch:
        return default_collate([self.samples[key] for key in keys])


def make_loader(samples: Any, sampler: EpochBatches, *, workers: int = 0) -> DataLoader[Batch]:
    """Return a loader of whole batches; `samples` with a `batch(keys)` method is asked for whole batches.

    Args:
        samples: data set indexed by (index, view).
        sampler: gives the keys of each batch.
        workers: processes that load; 0 loads in this one.
    """
    if hasattr(samples, "batch"):
        return DataLoader(samples, batch_size=None, sampler=sampler)
    return DataLoader(
        _Batched(samples),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
