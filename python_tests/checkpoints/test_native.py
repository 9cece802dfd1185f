"""Checkpoints describe their network, and everything else is refused with the file's name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.checkpoints.native import file_hash
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.training.state import load_state, save_state


@pytest.fixture
def model():
    return create_model("hrnet_w8_small", input_size=(32, 64), num_joints=16, split_ratio=1.5)


def test_a_saved_model_comes_back_the_same(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model.to(memory_format=torch.channels_last), MPII_JOINTS, path)
    loaded, joints = load_model(path)
    assert joints == MPII_JOINTS
    assert (loaded.name, loaded.input_size, loaded.split_ratio) == ("hrnet_w8_small", (32, 64), 1.5)
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())


def test_everything_that_a_network_is_comes_back(tmp_path):
    chosen = {"head": "heatmap", "decoding": "dark", "color_order": "bgr"}
    path = tmp_path / "model.safetensors"
    save_model(
        create_model("hrnet_w8_small", input_size=(64, 32), num_joints=16, **chosen), MPII_JOINTS, path
    )
    loaded, _ = load_model(path)
    assert {name: getattr(loaded, name) for name in chosen} == chosen
    several = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16, channels_per_joint=3)
    save_model(several, MPII_JOINTS, path)
    assert load_model(path)[0].channels_per_joint == 3


def test_a_checkpoint_from_before_heads_were_told_apart(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, MPII_JOINTS, path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["cdkd_ext"])
    for name in ("channels_per_joint", "decoding", "color_order"):
        del metadata["model"][name]
    save_file(load_file(path), path, {"cdkd_ext": json.dumps(metadata)})
    assert load_model(path)[0].head == "simcc"


def test_a_folder_stands_for_its_best_checkpoint(model, tmp_path):
    save_model(model, MPII_JOINTS, tmp_path / "best.safetensors")
    assert load_model(tmp_path)[0].name == model.name
    assert file_hash(tmp_path) == file_hash(tmp_path / "best.safetensors")


def test_a_truncated_checkpoint_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, MPII_JOINTS, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"teacher: .*model\.safetensors"):
        load_model(path, "teacher")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"foreign\.safetensors, which does not say what network"):
        load_model(path)


def test_weights_of_another_code_base_need_converting(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "official.pth")
    with pytest.raises(
        InputError, match=r"teacher: .*official\.pth is no complete .* `cdkd convert` makes one"
    ):
        load_model(tmp_path / "official.pth", "teacher")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"weights: .*nothing\.safetensors"):
        load_model(tmp_path / "nothing.safetensors")


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
