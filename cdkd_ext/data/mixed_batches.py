"""Batches with a fixed share of people without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cdkd_ext.data.batches import EpochBatches, Key
from cdkd_ext.errors import check


class MixedBatches(EpochBatches):
    """Batches of (index, view) keys that all hold the same number of people without labels, behind the others.

    Each of the two groups is gone through in an order of its own, from epoch to epoch without a break: everybody of a
    group is seen n times before anybody is seen n + 1 times. Where `views` is 0, a person's n-th time is view n. All
    this is a function of the seed and of the attributes `epoch` and `first` alone.

    An epoch has as many batches as it would have without a share.

    Args:
        labelled: indices of the people with labels.
        unlabelled: indices of the people without.
        batch_size: people per batch.
        share: of the unlabelled in each batch, in [0, 1]; rounded to whole people, at least one of either group unless
            it is 0 or 1.
        seed: of the order.
        views: number of fixed views per person; 0 gives every time a view of its own.
        rank: number of this process.
        processes: how many processes share the epoch.

    Raises:
        InputError: the share is out of range, or takes people of a group that is empty.

    Example:
        ```python
        order = MixedBatches(range(100), range(100, 1000), 32, share=0.75, seed=0)
        ```
    """

    def __init__(
        self,
        labelled: Sequence[int],
        unlabelled: Sequence[int],
        batch_size: int,
        *,
        share: float,
        seed: int,
        views: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        people = [*labelled, *unlabelled]
        super().__init__(people, batch_size, seed=seed, views=views, rank=rank, processes=processes)
        name = "data.unlabelled_share"
        check(0 <= share <= 1, name, share, "a number in [0, 1]")
        check(share == 1 or labelled, name, share, "1, for there is nobody with labels")
        check(share == 0 or unlabelled, name, share, "0, for there is nobody without labels")
        count = round(share * batch_size)
        if 0 < share < 1:
            check(batch_size > 1, "batch_size", batch_size, f"at least 2 with an unlabelled share of {share}")
            count = min(max(count, 1), batch_size - 1)
        self.unlabelled_per_batch = count
        self._groups = [
            (_Rounds(labelled, (seed, 0), views), batch_size - count),
            (_Rounds(unlabelled, (seed, 1), views), count),
        ]

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.first, len(self)):
            batch = (self.epoch * len(self) + step) * self.processes + self.rank
            yield [key for group, count in self._groups for key in group.keys(batch * count, count)]


class _Rounds:
    """People in rounds without end, each in another order.

    Args:
        people: their indices.
        seed: of the orders.
        views: number of fixed views, drawn for each time; 0 takes the round's number.
    """

    def __init__(self, people: Sequence[int], seed: tuple[int, int], views: int) -> None:
        self._people = np.asarray(people, dtype=np.int64)
        self._seed = seed
        self._views = views
        self._round: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None

    def keys(self, start: int, count: int) -> list[Key]:
        """The keys at the places from `start` on."""
        found: list[Key] = []
        while len(found) < count:
            number, place = divmod(start + len(found), len(self._people))
            people, views = self._drawn(number)
            end = place + count - len(found)
            found += zip(people[place:end].tolist(), views[place:end].tolist(), strict=True)
        return found

    def _drawn(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if self._round is None or self._round[0] != number:
            generator = np.random.default_rng([*self._seed, number])
            people = generator.permutation(self._people)
            views = np.full(len(people), number)
            if self._views:
                views = generator.integers(self._views, size=len(people))
            self._round = number, people, views
        return self._round[1:]
