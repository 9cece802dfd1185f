"""Weights behind the wrappers of other programs, and beside what those programs store."""

from __future__ import annotations

import argparse
import collections
import pathlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.checkpoints import load_checkpoint, read_weights
from cdkd_ext.errors import InputError
from cdkd_ext.models import PoseNetwork, create_model

Weights = dict[str, Tensor]


def make_model(seed: int) -> PoseNetwork:
    torch.manual_seed(seed)
    return create_model("hrnet_w8_small", input_size=(32, 32), num_joints=4)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return make_model(1).state_dict()


def before(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def others(weights: Weights) -> Weights:
    return {name: torch.zeros_like(value) for name, value in weights.items()}


def mmpose(weights: Weights) -> Weights:
    parts = ("deconv_layers", "final_layer", "mlp_head_x", "mlp_head_y")
    return {
        f"{'head' if name.startswith(parts) else 'backbone'}.{name}": value for name, value in weights.items()
    }


def assert_read(content: Any, weights: Weights, folder: Path) -> tuple[str, ...]:
    """Load into another network; return what the report says was dropped."""
    torch.save(content, folder / "weights.pth")
    model = make_model(2)
    report = load_checkpoint(model, folder / "weights.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert len(report.matched) == len(weights)
    return report.dropped


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "_orig_mod.module.",
        "module._orig_mod.",
        "module.module.",
        "model.",
        "model.module._orig_mod.",
        "module.model.net.",
        "pose_network.",
        "student.module.",
    ],
)
@pytest.mark.parametrize("layout", [dict, mmpose])
def test_prefixes_in_any_order(
    tmp_path: Path, weights: Weights, prefix: str, layout: Callable[[Weights], Weights]
) -> None:
    assert assert_read(before(prefix, layout(weights)), weights, tmp_path) == ()


def test_wrappers_within_names(tmp_path: Path, weights: Weights) -> None:
    renamed = {name.replace("stage2.0.", "stage2._orig_mod.0."): value for name, value in weights.items()}
    assert renamed.keys() != weights.keys()
    assert_read(renamed, weights, tmp_path)


@pytest.mark.parametrize(
    "keys",
    [
        ("model",),
        ("model_state_dict",),
        ("net",),
        ("state_dict",),
        ("ema",),
        ("state_dict_ema",),
        ("whatever",),
        ("checkpoint", "state_dict"),
        ("model", "state_dict"),
    ],
)
def test_keys_beside_an_optimizer_and_options(
    tmp_path: Path, weights: Weights, keys: tuple[str, ...]
) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    content: Any = before("module.", weights)
    for key in reversed(keys):
        content = {key: content}
    content |= {
        "optimizer": optimizer.state_dict(),
        "lr_schedulers": [{"last_epoch": 3}],
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("out")),
        "options": types.SimpleNamespace(seed=1),
        "history": collections.defaultdict(list, {"loss": [0.5]}),
        "arch": {"name": "hrnet"},
    }
    assert_read(content, weights, tmp_path)


def test_lightning_checkpoint(tmp_path: Path, weights: Weights) -> None:
    state = before("model.", weights) | {"loss.weight": torch.ones(4), "metric.total": torch.ones(())}
    content = {"pytorch-lightning_version": "2.1.0", "state_dict": state, "hyper_parameters": {"lr": 0.1}}
    assert assert_read(content, weights, tmp_path) == ("loss.weight", "metric.total")


def test_real_weights_are_taken_beside_their_average(tmp_path: Path, weights: Weights) -> None:
    content = {"model": weights, "ema": others(weights), "optimizer": {"state": {}, "param_groups": []}}
    assert assert_read(content, weights, tmp_path) == ("ema",)
    reverse = {"state_dict_ema": others(weights), "state_dict": weights}
    assert assert_read(reverse, weights, tmp_path) == ("state_dict_ema",)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_ema_twins_of_mmcv(tmp_path: Path, weights: Weights, prefix: str) -> None:
    real = mmpose(weights)
    twins = {f"ema_{name.replace('.', '_')}": torch.zeros_like(value) for name, value in real.items()}
    dropped = assert_read({"meta": {}, "state_dict": before(prefix, real | twins)}, weights, tmp_path)
    assert set(dropped) == {*twins}


def test_student_beside_teacher_and_distillation_losses(tmp_path: Path, weights: Weights) -> None:
    state = before("student.", mmpose(weights)) | before("teacher.", others(mmpose(weights)))
    state["distill_losses.loss_mgd.align.weight"] = torch.ones(2, 2)
    dropped = assert_read({"state_dict": state}, weights, tmp_path)
    assert {name for name in state if not name.startswith("student.")} == set(dropped)

    state = mmpose(weights) | before("teacher.", others(mmpose(weights)))
    state["distill_losses.loss_mgd.align.weight"] = torch.ones(2, 2)
    assert len(assert_read({"state_dict": state}, weights, tmp_path)) == len(weights) + 1


def test_averaged_model(tmp_path: Path, weights: Weights) -> None:
    state = before("module.", weights) | {"n_averaged": torch.tensor(3)}
    assert assert_read(state, weights, tmp_path) == ("n_averaged",)


def test_sets_of_weights_without_a_known_name_are_not_guessed(tmp_path: Path, weights: Weights) -> None:
    torch.save({"a": weights, "b": others(weights)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth: expected tensors by name, got 2 entries .*\(a; b\)"):
        read_weights(tmp_path / "weights.pth")


def test_a_file_that_holds_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["state_dict"] = content["model"] = content
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth: expected tensors by name"):
        read_weights(tmp_path / "weights.pth")
