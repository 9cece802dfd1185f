"""Orders of people are functions of the seed and the epoch, and processes share an epoch without overlap."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from cdkd_ext.data.batches import EpochBatches, EpochLoader


def keys_of(sampler: EpochBatches) -> list[tuple[int, int]]:
    return [key for batch in sampler for key in batch]


@given(
    people=st.integers(1, 40),
    batch_size=st.integers(1, 8),
    processes=st.integers(1, 3),
    epoch=st.integers(0, 5),
)
def test_processes_see_different_people_and_equally_many_batches(people, batch_size, processes, epoch):
    samplers = [
        EpochBatches(range(people), batch_size, seed=3, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    for sampler in samplers:
        sampler.epoch = epoch
    batches = [list(sampler) for sampler in samplers]
    assert {len(share) for share in batches} == {len(samplers[0])}
    if people >= batch_size * processes:
        seen = [key for share in batches for batch in share for key in batch]
        assert len(seen) == len(set(seen)) == len(samplers[0]) * batch_size * processes
        assert all(0 <= index < people and view == epoch for index, view in seen)


def test_same_seed_and_epoch_give_the_same_order_and_others_another():
    first, second = EpochBatches(range(50), 4, seed=1), EpochBatches(range(50), 4, seed=1)
    assert keys_of(first) == keys_of(second)
    second.epoch = 1
    assert keys_of(first) != keys_of(second)
    assert keys_of(first) != keys_of(EpochBatches(range(50), 4, seed=2))


def test_only_the_given_people_are_drawn():
    sampler = EpochBatches([3, 7, 11, 20], 2, seed=0)
    assert sorted(index for index, _ in keys_of(sampler)) == [3, 7, 11, 20]


def test_fixed_views_are_drawn_from_their_number():
    sampler = EpochBatches(range(200), 10, seed=0, views=3)
    assert {view for _, view in keys_of(sampler)} == {0, 1, 2}


class Samples(Dataset):
    def __getitem__(self, key):
        index, view = key
        return {"index": torch.tensor(index), "view": torch.tensor(view)}


def test_workers_give_the_same_batches_in_the_same_order():
    sampler = EpochBatches(range(24), 4, seed=5)
    alone = [batch["index"].tolist() for batch in EpochLoader(Samples(), sampler).epoch(0)]
    helped = [batch["index"].tolist() for batch in EpochLoader(Samples(), sampler, workers=2).epoch(0)]
    assert alone == helped == [[index for index, _ in batch] for batch in sampler]
