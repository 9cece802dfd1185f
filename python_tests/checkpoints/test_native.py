"""Checkpoints describe their network, and everything else is refused with the file's name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.checkpoints.native import checkpoint_file, file_hash
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model


@pytest.fixture
def model():
    return create_model(
        "hrnet_w8_small", input_size=(32, 64), num_joints=16, split_ratio=1.5, padding=1.5, joints=MPII_JOINTS
    )


def test_a_saved_model_comes_back_the_same(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model.to(memory_format=torch.channels_last), path)
    loaded = load_model(path)
    assert loaded.spec == model.spec and loaded.spec.joints == MPII_JOINTS and loaded.spec.padding == 1.5
    assert (loaded.name, loaded.input_size, loaded.split_ratio) == ("hrnet_w8_small", (32, 64), 1.5)
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())


def test_everything_that_a_network_is_comes_back(tmp_path):
    chosen = {"head": "heatmap", "decoding": "dark", "color_order": "bgr"}
    path = tmp_path / "model.safetensors"
    shared = {"num_joints": 16, "joints": MPII_JOINTS}
    save_model(create_model("hrnet_w8_small", input_size=(64, 32), **shared, **chosen), path)
    loaded = load_model(path)
    assert {name: getattr(loaded, name) for name in chosen} == chosen
    several = create_model("hrnet_w8_small", input_size=(32, 32), channels_per_joint=3, **shared)
    save_model(several, path)
    assert load_model(path).channels_per_joint == 3


def test_a_network_of_unknown_joints_is_not_saved(tmp_path):
    nameless = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16)
    with pytest.raises(InputError, match=r"joints: expected the names of the joints"):
        save_model(nameless, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_from_before_heads_were_told_apart(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["cdkd_ext"])
    for name in ("channels_per_joint", "decoding", "color_order"):
        del metadata["model"][name]
    save_file(load_file(path), path, {"cdkd_ext": json.dumps(metadata)})
    assert load_model(path).head == "simcc"


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"model": 3}', '{"model": {"name": "hrnet_w32"}}'])
def test_damaged_metadata_is_refused(model, tmp_path, damage):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    save_file(load_file(path), path, {"cdkd_ext": damage})
    with pytest.raises(InputError, match=r"weights: .*model\.safetensors has damaged metadata"):
        load_model(path)


def test_a_folder_stands_for_its_best_checkpoint(model, tmp_path):
    save_model(model, tmp_path / "best.safetensors")
    assert load_model(tmp_path).name == model.name
    assert file_hash(tmp_path) == file_hash(tmp_path / "best.safetensors")


@pytest.mark.parametrize("name", ["adapted.onnx", "adapted.pth"])
@pytest.mark.parametrize("read", [load_model, file_hash, checkpoint_file])
def test_the_folder_of_an_adaptation_names_its_network(tmp_path, name, read):
    (tmp_path / name).touch()
    with pytest.raises(
        InputError, match=rf"weights: expected .*checkpoint, got .*the network itself is .*/{name}$"
    ):
        read(tmp_path)


def test_the_folder_of_several_students_lists_them(tmp_path):
    (tmp_path / "students.yaml").write_text("seed: 0\nstudents: [small, large, /elsewhere/third]\n")
    listed = f"{tmp_path}/small, {tmp_path}/large, /elsewhere/third"
    with pytest.raises(InputError, match=rf"path: .* the folder of several students: {listed}$"):
        load_model(tmp_path, "path")


def test_an_adaptation_that_has_a_checkpoint_is_read(model, tmp_path):
    save_model(model, tmp_path / "best.safetensors")
    (tmp_path / "adapted.onnx").touch()
    assert load_model(tmp_path).name == model.name


def test_a_folder_without_any_of_it(tmp_path):
    with pytest.raises(
        InputError, match=r"weights: expected an existing checkpoint, got .*best\.safetensors"
    ):
        load_model(tmp_path)


def test_a_truncated_checkpoint_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
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
