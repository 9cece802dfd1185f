"""Checkpoints of version 0.1.0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from cdkd_ext.checkpoints import load_model
from cdkd_ext.checkpoints.migration import current_model_name
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import ModelSpec, create_model

# what 0.1.0 wrote into a file: no padding, joints beside the network, networks with an underscore
MODEL = {
    "name": "resnet_50_upsample_free",
    "input_size": [32, 64],
    "num_joints": 16,
    "split_ratio": 2.0,
    "head": "simcc",
    "channels_per_joint": 2,
    "decoding": "quarter",
    "color_order": "bgr",
}
CONFIG = """batch_size: 32
data:
  augmentation:
    flip: 0.5
    padding: 9.0
  boxes: null
  padding: 1.5
  workers: 2
model:
  name: resnet_50_upsample_free
  padding: 9.0
"""
SPEC = ModelSpec(
    name="resnet50_upsample_free",
    input_size=(32, 64),
    num_joints=16,
    split_ratio=2.0,
    channels_per_joint=2,
    color_order="bgr",
    joints=MPII_JOINTS,
    resample="linear",
)


def write(path: Path, metadata: dict) -> None:
    weights = create_model(SPEC).state_dict()
    save_file(weights, path, {"cdkd_ext": json.dumps(metadata)})


def test_a_checkpoint_of_0_1_0_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"model": MODEL, "joints": MPII_JOINTS.to_category()})
    assert load_model(tmp_path / "a.safetensors").spec == SPEC


def test_the_padding_of_a_run_of_0_1_0_comes_from_its_configuration(tmp_path: Path) -> None:
    write(tmp_path / "best.safetensors", {"model": MODEL, "joints": MPII_JOINTS.to_category()})
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert load_model(tmp_path).spec.padding == 1.5
    (tmp_path / "config.yaml").write_text(CONFIG.replace("  padding: 1.5\n", ""))
    assert load_model(tmp_path).spec.padding == 1.25


def test_a_checkpoint_of_today_has_its_own_padding(tmp_path: Path) -> None:
    write(tmp_path / "best.safetensors", {"model": SPEC.to_dict() | {"padding": 1.1}})
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert load_model(tmp_path).spec.padding == 1.1


def test_old_names_are_read_in_old_files_only(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"model": SPEC.to_dict() | {"name": "resnet_50_upsample_free"}})
    with pytest.raises(InputError, match="name: expected one of"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("resnet_50", "resnet50"),
        ("resnet_152_upsample_free", "resnet152_upsample_free"),
        ("hrnet_w32", "hrnet_w32"),
        ("resnet50", "resnet50"),
    ],
)
def test_names(old: str, new: str) -> None:
    assert current_model_name(old) == new
