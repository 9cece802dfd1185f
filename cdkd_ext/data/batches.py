"""Which people form which batch: a function of the seed, the epoch and the process alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from cdkd_ext.errors import InputError

Key = tuple[int, int]
# a sample's tensors stacked, and beside stored views the teacher's output for them
Batch = dict[str, Any]


class LostWorkerError(InputError):
    """A loading process was killed, or found no memory to hand its samples over."""


# torch has no exception of its own for these
_LOST = ("DataLoader worker (pid", "No space left on device", "unable to allocate shared memory")


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Turn what torch raises in the block for a lost loading process into one line.

    Raises:
        LostWorkerError: says how the process ended, and what to change.
    """
    try:
        yield
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1] if str(error) else ""
        if not any(words in str(error) for words in _LOST):
            raise
        expected = "fewer loading processes, or more memory for them (/dev/shm too)"
        raise LostWorkerError(f"data.workers: expected {expected}, got a lost one: {line}") from error


class EpochBatches(Sampler[list[Key]]):
    """Shuffled batches of (index, view) keys; each process takes every `processes`-th batch.

    Which people, which views and in which order is a function of the seed and of the attribute `epoch` alone;
    the attribute `first` leaves out the batches before it.

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
        self.first = 0

    def __len__(self) -> int:
        return max(1, len(self.people) // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[Key]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.people)
        views = (
            generator.integers(self.views, size=len(order)) if self.views else np.full(len(order), self.epoch)
        )
        for step in range(self.first, len(self)):
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


def _leave_signals_to_the_parent(worker: int) -> None:
    """Leave the group to which a terminal sends Ctrl-C: the parent finishes its step, and then ends this process."""
    os.setpgid(0, 0)


class EpochLoader:
    """Loads the batches of an epoch; samples with a `batch(keys)` method are asked for whole batches.

    Args:
        samples: data set indexed by (index, view).
        order: gives the keys of each batch.
        workers: processes that load; 0 loads in this one.
        pin_memory: put the batches into memory from which a GPU copies while it computes.

    Example:
        ```python
        loader = EpochLoader(dataset, EpochBatches(range(len(dataset)), 32, seed=0), workers=2)
        for epoch in range(10):
            for batch in loader.epoch(epoch):
                ...
        ```
    """

    def __init__(
        self, samples: Any, order: EpochBatches, *, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self._order = order
        self._samples = samples
        self._loader: DataLoader[Batch] = DataLoader(
            samples if hasattr(samples, "batch") else _Batched(samples),
            batch_size=None,
            sampler=order,
            num_workers=workers,
            pin_memory=pin_memory,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_leave_signals_to_the_parent,
        )

    def __len__(self) -> int:
        """Batches of this process per epoch."""
        return len(self._order)

    @property
    def people_per_step(self) -> int:
        """People of a step in all processes together."""
        return self._order.batch_size * self._order.processes

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the batch `first` on, both counted from 0."""
        self._order.epoch, self._order.first = epoch, first
        return iter(self._loader)

    def on_device(self, batch: Batch) -> Batch:
        """Do what is left to do once a batch is on its device: samples with an `on_device(batch)` method do it."""
        return self._samples.on_device(batch) if hasattr(self._samples, "on_device") else batch
