"""Weights come whole, from files that cannot run code, or not at all."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cdkd_ext.checkpoints import export_checkpoint, load_checkpoint, read_weights
from cdkd_ext.errors import InputError
from cdkd_ext.models import PoseNetwork, create_model


def make_model(seed: int, num_joints: int = 4) -> PoseNetwork:
    torch.manual_seed(seed)
    return create_model("hrnet_w8_small", input_size=(32, 32), num_joints=num_joints)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return make_model(1).state_dict()


def plain(weights: dict[str, torch.Tensor]) -> Any:
    return weights


def nested(weights: dict[str, torch.Tensor]) -> Any:
    return {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}


def best(weights: dict[str, torch.Tensor]) -> Any:
    worse = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in weights.items()}
    return {"state_dict": worse, "best_state_dict": weights, "optimizer": {"lr": 0.1}}


def without_counters(weights: dict[str, torch.Tensor]) -> Any:
    return {name: tensor for name, tensor in weights.items() if "num_batches_tracked" not in name}


@pytest.mark.parametrize("wrap", [plain, nested, best, without_counters])
def test_torch_files(
    tmp_path: Path, weights: dict[str, torch.Tensor], wrap: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    torch.save(wrap(weights), tmp_path / "weights.pth")
    model = make_model(2)
    load_checkpoint(model, tmp_path / "weights.pth")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_safetensors_file(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, tmp_path / "weights.safetensors")
    model = make_model(2)
    load_checkpoint(model, str(tmp_path / "weights.safetensors"))
    assert torch.equal(model.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_truncated_files(
    tmp_path: Path, weights: dict[str, torch.Tensor], suffix: str, kept: int | float
) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(
        InputError, match=r"weights\.\w+: expected a .* file.*, got a truncated or foreign one"
    ):
        read_weights(path)


@pytest.mark.parametrize("name", ["picture.jpg", "notes.txt", "weights.pth", "weights.safetensors"])
def test_foreign_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xff\xd8\xff\xe0 this is no checkpoint" * 20)
    with pytest.raises(InputError, match=rf"{name}: expected .*, got a truncated or foreign one"):
        read_weights(path)


class RunsCode:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.witness),)


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": RunsCode(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(
        InputError, match=r"bad\.pth: expected .* only tensors, got one with Python objects \(\w+\.mkdir\)"
    ):
        read_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (torch.zeros(3), "Tensor without tensors"),
        ({}, "dict without tensors"),
        ({"a": torch.zeros(1), "lr": 0.1}, r"1 entries that are no tensors \(lr\)"),
    ],
)
def test_torch_files_of_something_else(tmp_path: Path, content: object, came: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth: expected tensors by name, got {came}"):
        read_weights(tmp_path / "other.pth")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth: expected a weights file, got no such file"):
        read_weights(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="expected a weights file, got a folder"):
        read_weights(tmp_path)


def test_refusal_names_the_first_few_and_changes_nothing(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    changed = dict(weights)
    for name in ("conv1.weight", "conv2.weight", "bn1.weight", "bn1.bias"):
        del changed[name]
    changed["head.extra"] = torch.zeros(1)
    changed["mlp_head_x.bias"] = torch.zeros(7)
    torch.save(changed, tmp_path / "weights.pth")
    model = make_model(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_checkpoint(model, tmp_path / "weights.pth")
    message = str(error.value)
    assert "\n" not in message
    assert f"{len(weights)} tensors of this hrnet_w8_small" in message
    assert "4 missing (conv1.weight; bn1.weight; bn1.bias; ...)" in message
    assert "1 unexpected (head.extra)" in message
    assert "1 that do not fit (mlp_head_x.bias (7,) instead of (96,))" in message
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_weights_of_another_joint_set(tmp_path: Path) -> None:
    save_file(make_model(1, num_joints=5).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"final_layer.weight \(5, 8, 1, 1\) instead of \(4, 8, 1, 1\)"):
        load_checkpoint(make_model(2), tmp_path / "weights.safetensors")


def test_tensors_that_are_not_whole_change_nothing(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    model = make_model(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "weights.pth"
    for broken, word in (
        (weights["mlp_head_x.weight"].to_sparse(), ", sparse instead of"),
        (weights["mlp_head_x.weight"].to("meta"), " without numbers instead of"),
    ):
        torch.save({**weights, "mlp_head_x.weight": broken}, path)
        with pytest.raises(InputError, match=f"1 that do not fit .*{word}"):
            load_checkpoint(model, path)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["full.pth", "full.safetensors"])
def test_a_full_disk_is_one_line(tmp_path: Path, name: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"{name}: expected a disk that takes it, got "):
            export_checkpoint(make_model(1), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
