"""The state that lets a run go on: whole, or refused, and never executed."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.training.state import load_state, save_state


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
