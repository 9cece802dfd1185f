"""Which trainings give the same bits, and which the same numbers to a tolerance; docs/robustness.md has the table."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from cdkd_ext.data import DataConfig
from cdkd_ext.training import ModelConfig, TrainingConfig, train


def trained(drawn_people, output, *, threads=1, workers=0):
    """The record and the weights of one epoch of three steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        record = train(
            TrainingConfig(
                output=str(output),
                model=ModelConfig(name="hrnet_w8_small", input_size=(32, 32)),
                data=DataConfig(root=str(drawn_people), workers=workers),
                epochs=1,
                batch_size=16,
            )
        )
    finally:
        torch.set_num_threads(before)
    return record, load_file(output / "last.safetensors")


@pytest.fixture(scope="module")
def alone(drawn_people, tmp_path_factory):
    """With one thread, and images loaded in the training's own process."""
    return trained(drawn_people, tmp_path_factory.mktemp("alone"))


def test_loading_processes_change_no_bit(drawn_people, tmp_path, alone):
    _, weights = trained(drawn_people, tmp_path, workers=2)
    assert [name for name in weights if not torch.equal(weights[name], alone[1][name])] == []


def test_threads_change_rounding_alone(drawn_people, tmp_path, alone):
    record, _ = trained(drawn_people, tmp_path, threads=2)
    assert record["total"] == pytest.approx(alone[0]["total"], rel=1e-4)
