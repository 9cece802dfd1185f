"""The state that lets a run go on: whole, or refused, and never executed."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.training.state import load_optimizer, load_state, read_run, save_state


def test_state_round_trip_and_refusal(tmp_path):
    path = tmp_path / "state.pt"
    save_state({"epoch": 3, "values": [torch.ones(2)]}, path)
    assert load_state(path)["epoch"] == 3
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"state\.pt cannot be read"):
        load_state(path)


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_state_that_would_execute_code_is_refused(tmp_path, capsys):
    path = tmp_path / "state.pt"
    torch.save({"epoch": Malicious()}, path)
    with pytest.raises(InputError, match="cannot be read"):
        load_state(path)
    assert "executed" not in capsys.readouterr().out


def test_moments_of_another_shape_are_refused():
    """A fused optimiser would read past their end."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    load_optimizer(torch.optim.AdamW(layer.parameters()), state)
    state["state"][1]["exp_avg"] = torch.zeros(3)
    with pytest.raises(
        InputError, match=r"resume: the optimizer's exp_avg, parameter 1: expected shape \(2,\), got \(3,\)"
    ):
        load_optimizer(torch.optim.AdamW(layer.parameters()), state)
    with pytest.raises(InputError, match="resume: the optimizer's state is not that of this network"):
        load_optimizer(torch.optim.AdamW(layer.parameters()), {})


@pytest.mark.parametrize(
    ("name", "value"), [("epoch", "1"), ("epoch", -1), ("task", None), ("history", None), ("optimizer", [])]
)
def test_a_field_of_another_kind_is_refused(tmp_path, name, value):
    whole = {"epoch": 1, "step": 2, "task": {}, "optimizer": {}, "history": [], "best": None}
    save_state(whole, tmp_path / "state.pt")
    assert read_run(tmp_path, 3) == whole
    save_state(whole | {name: value}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"resume: expected the state.pt of a run, got .*" + name):
        read_run(tmp_path, 3)
