"""The average of the weights: what it is, that it is what a run results in, and that it goes on to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cdkd_ext.data import DataConfig
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import evaluate_checkpoint
from cdkd_ext.models import create_model
from cdkd_ext.training import InterruptedRun, ModelConfig, Trainer, TrainingConfig, train
from cdkd_ext.training.ema import WeightAverage
from cdkd_ext.training.state import load_state

MODEL = ModelConfig(name="hrnet_w8_small", input_size=(32, 32))


def plain(drawn_people: Path, output: Path, **changes: Any) -> TrainingConfig:
    data = DataConfig(root=str(drawn_people), workers=0)
    config = TrainingConfig(
        output=str(output), model=MODEL, data=data, epochs=2, batch_size=16, ema_decay=0.9
    )
    return replace(config, **changes)


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "last.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_is_the_average_in_float64():
    torch.manual_seed(0)
    network = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=3)
    average = WeightAverage(network, 0.7)
    expected = {name: value.double().clone() for name, value in network.state_dict().items()}
    for step in range(1, 13):
        with torch.no_grad():
            for value in network.state_dict().values():
                value.add_(1 if value.dtype == torch.int64 else torch.randn_like(value))
        average.update(network)
        decay = min(0.7, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
            else:
                expected[name] = value.double()
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=0, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_a_run_results_in_the_average(drawn_people, tmp_path):
    train(plain(drawn_people, tmp_path / "plain", ema_decay=0.0))
    record = train(plain(drawn_people, tmp_path / "averaged"))
    state = load_state(tmp_path / "averaged/state.pt")
    saved = weights(tmp_path / "averaged")
    assert same(saved, state["average"]["weights"])
    # the student itself learns as it would without
    student = {
        name.removeprefix("student."): value
        for name, value in state["task"].items()
        if name.startswith("student.")
    }
    assert same(student, weights(tmp_path / "plain")) and not same(student, saved)
    data = DataConfig(root=str(drawn_people), workers=0)
    report = evaluate_checkpoint(str(tmp_path / "averaged/last.safetensors"), data, cpu=True)
    assert report["pckh"] == record["pckh"]


def interrupted_in(step: int, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer._train_step

    def train_step(self: Trainer, batch: Any) -> Any:
        if self.step == step:
            raise KeyboardInterrupt
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", train_step)
        with pytest.raises(InterruptedRun):
            train(config)


def test_a_resumed_run_ends_at_the_same_bits(drawn_people, tmp_path, monkeypatch):
    train(plain(drawn_people, tmp_path / "whole", checkpoint_every=2))
    broken = plain(drawn_people, tmp_path / "broken", checkpoint_every=2)
    interrupted_in(5, broken, monkeypatch)
    train(broken, resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def test_a_run_without_one_can_begin_it(drawn_people, tmp_path):
    first = plain(drawn_people, tmp_path / "run", epochs=1, ema_decay=0.0)
    train(first)
    before = weights(tmp_path / "run")
    train(replace(first, epochs=2, ema_decay=0.9), resume=True)
    state = load_state(tmp_path / "run/state.pt")
    assert state["average"]["steps"] == 3
    assert not same(before, weights(tmp_path / "run"))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_named(decay):
    with pytest.raises(InputError, match=r"ema_decay: expected a number in \[0, 1\)"):
        TrainingConfig(ema_decay=decay).validate()
