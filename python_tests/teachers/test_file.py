"""What a teacher's file says before its network is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdkd_ext.checkpoints import save_model
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.teachers import TeacherFile


def test_joints_of_a_checkpoint(tmp_path: Path) -> None:
    network = create_model("hrnet_w8_small", input_size=(32, 32), joints=MPII_JOINTS, num_joints=16)
    save_model(network, tmp_path / "best.safetensors")
    for path in (tmp_path, tmp_path / "best.safetensors"):
        assert TeacherFile(str(path)).joints() == MPII_JOINTS


def test_joints_of_a_foreign_network(shared_data: Path) -> None:
    path = shared_data / "teachers/movenet_lightning_heads.onnx"
    joints = TeacherFile(str(path)).joints()
    assert joints is not None and joints.names == COCO_JOINTS.names


def test_no_file(tmp_path: Path) -> None:
    for name in ("none.safetensors", "none.onnx"):
        with pytest.raises(InputError, match=f"teacher.*{name}"):
            TeacherFile(str(tmp_path / name)).joints()
