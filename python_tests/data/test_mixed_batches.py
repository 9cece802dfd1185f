"""Every batch holds the told share, processes divide what one alone would see, and nobody waits long."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.data.mixed_batches import MixedBatches
from cdkd_ext.errors import InputError

Key = tuple[int, int]


def batches_of(order: MixedBatches, epoch: int, first: int = 0) -> list[list[Key]]:
    order.epoch, order.first = epoch, first
    return list(order)


def order_of(labelled: int, unlabelled: int, batch_size: int, share: float, **options) -> MixedBatches:
    """The labelled are 0, 1, …, the others 1000, 1001, …"""
    people = range(labelled), range(1000, 1000 + unlabelled)
    return MixedBatches(*people, batch_size, share=share, **{"seed": 3, **options})


@given(
    labelled=st.integers(1, 30),
    unlabelled=st.integers(1, 30),
    batch_size=st.integers(2, 9),
    share=st.floats(0, 1),
    processes=st.integers(1, 3),
    views=st.sampled_from([0, 2]),
)
def test_the_share_of_every_batch(labelled, unlabelled, batch_size, share, processes, views) -> None:
    orders = [
        order_of(labelled, unlabelled, batch_size, share, rank=rank, processes=processes, views=views)
        for rank in range(processes)
    ]
    lists = [[batch for epoch in range(3) for batch in batches_of(order, epoch)] for order in orders]
    assert {len(batches) for batches in lists} == {3 * len(orders[0])}
    assert len(orders[0]) == max(1, (labelled + unlabelled) // (batch_size * processes))
    for batches in lists:
        for batch in batches:
            assert len(batch) == batch_size
            count = sum(index >= 1000 for index, _ in batch)
            assert count == orders[0].unlabelled_per_batch
            assert abs(count - share * batch_size) <= 0.5 or count in (1, batch_size - 1)
    # together the processes go through each group round by round
    for group in (range(1000), range(1000, 2000)):
        seen = [
            key for step in zip(*lists, strict=True) for batch in step for key in batch if key[0] in group
        ]
        times = Counter(index for index, _ in seen)
        if seen:
            size = labelled if group[0] == 0 else unlabelled
            everybody = [times[index] for index in range(group[0], group[0] + size)]
            assert max(everybody) - min(everybody) <= 1
            if not views:
                assert len(set(seen)) == len(seen)


def test_processes_divide_the_batches_of_one() -> None:
    whole = order_of(20, 50, 12, 0.5)
    halves = [order_of(20, 50, 6, 0.5, rank=rank, processes=2) for rank in range(2)]
    for epoch in range(3):
        together = zip(*(batches_of(half, epoch) for half in halves), strict=True)
        for batch, (one, other) in zip(batches_of(whole, epoch), together, strict=True):
            assert sorted(batch) == sorted(one + other)


def test_only_seed_and_epoch_matter() -> None:
    first, second = order_of(20, 30, 8, 0.25), order_of(20, 30, 8, 0.25)
    later = batches_of(first, 4)
    assert batches_of(second, 4) == later
    # whatever was read before, and from a batch within the epoch on
    batches_of(second, 7)
    assert batches_of(second, 4, first=2) == later[2:]
    assert batches_of(order_of(20, 30, 8, 0.25, seed=4), 4) != later
    assert batches_of(first, 5) != later


def test_all_of_one_group() -> None:
    assert all(index < 1000 for batch in batches_of(order_of(5, 9, 2, 0.0), 0) for index, _ in batch)
    assert all(index >= 1000 for batch in batches_of(order_of(5, 9, 2, 1.0), 0) for index, _ in batch)
    assert order_of(0, 9, 4, 1.0).unlabelled_per_batch == 4
    assert order_of(9, 0, 4, 0.0).unlabelled_per_batch == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 5, 4, 1.5), r"data\.unlabelled_share: expected a number in \[0, 1\], got 1\.5"),
        ((5, 5, 4, float("nan")), r"data\.unlabelled_share"),
        ((0, 5, 4, 0.5), r"data\.unlabelled_share: expected 1, for there is nobody with labels"),
        ((5, 0, 4, 0.5), r"data\.unlabelled_share: expected 0, for there is nobody without labels"),
        ((5, 5, 1, 0.5), r"batch_size: expected at least 2 with an unlabelled share of 0\.5, got 1"),
    ],
)
def test_shares_that_cannot_be_had(arguments, message: str) -> None:
    with pytest.raises(InputError, match=message):
        order_of(*arguments)
