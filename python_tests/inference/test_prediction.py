from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from cdkd_ext.errors import InputError
from cdkd_ext.inference import Predictions, predict
from cdkd_ext.models import PoseNetwork, create_model

PEOPLE = 11


class RandomCrops(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, count: int = PEOPLE) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        return {
            "image": torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8),
            "to_image": torch.tensor([[2.0, 0.0, float(index)], [0.0, 2.0, 0.0]]),
            "index": torch.tensor(index),
        }


@pytest.fixture(scope="module")
def model() -> PoseNetwork:
    torch.manual_seed(0)
    network = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=4, split_ratio=2.0)
    for module in network.modules():
        # outputs that differ from picture to picture: the published initialisation is almost constant
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


@pytest.mark.parametrize("processes", [2, 3, 7])
@pytest.mark.parametrize("flip", [None, (0, 2, 1, 3)])
def test_shares_of_several_processes_are_the_whole_bit_for_bit(
    model: PoseNetwork, processes: int, flip: tuple[int, ...] | None
) -> None:
    whole = predict(model, RandomCrops(), flip_permutation=flip, batch_size=3)
    assert whole.indices.tolist() == list(range(PEOPLE))
    assert len({tuple(row) for row in whole.keypoints.flatten(1).tolist()}) == PEOPLE
    shares = [
        predict(model, RandomCrops(), flip_permutation=flip, batch_size=3, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    joined = Predictions(*(torch.cat(parts) for parts in zip(*shares, strict=True)))
    order = joined.indices.argsort()
    for mine, theirs in zip(whole, joined, strict=True):
        assert torch.equal(mine, theirs[order])
    # four batches: with seven processes some have nothing to do
    assert [len(share.indices) == 0 for share in shares].count(True) == max(0, processes - 4)


def test_progress_counts_people_and_the_mode_comes_back(model: PoseNetwork) -> None:
    told: list[int] = []
    model.train()
    predict(model, RandomCrops(), batch_size=4, progress=told.append)
    assert told == [4, 8, 11] and model.training
    assert predict(model, RandomCrops(2), rank=1, processes=2).keypoints.shape == (0, 4, 2)


def test_loading_processes_change_nothing(model: PoseNetwork) -> None:
    alone, helped = (predict(model, RandomCrops(), batch_size=3, workers=workers) for workers in (0, 2))
    for mine, theirs in zip(alone, helped, strict=True):
        assert torch.equal(mine, theirs)


def test_no_people(model: PoseNetwork) -> None:
    with pytest.raises(InputError, match="dataset: expected at least one"):
        predict(model, RandomCrops(0))
