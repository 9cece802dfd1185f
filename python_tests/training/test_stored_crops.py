"""Trainings whose crops are stored once and warped on the device."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.checkpoints import save_model
from cdkd_ext.data import DataConfig
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.training import DistillationConfig, ModelConfig, TrainingConfig, train
from cdkd_ext.training.precision import tf32


def config(drawn_people, output, **changes):
    data = DataConfig(root=str(drawn_people), workers=0, stored_crops=True, cache=str(output / "cache"))
    model = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)
    return {
        "output": str(output / "run"),
        "model": model,
        "data": data,
        "epochs": 1,
        "batch_size": 16,
        **changes,
    }


def test_a_distillation_with_stored_crops_agrees_with_one_from_images(drawn_people, tmp_path):
    """One step in evaluation of the same draws: only the second sampling differs."""
    torch.manual_seed(0)
    network = create_model(
        "hrnet_w8_small", input_size=(64, 64), num_joints=16, split_ratio=2.0, joints=MPII_JOINTS
    )
    save_model(network, tmp_path / "teacher.safetensors")
    losses = []
    for stored in (True, False):
        options = config(drawn_people, tmp_path / str(stored), batch_size=48)
        options["data"].stored_crops = stored
        run = DistillationConfig(teacher=str(tmp_path / "teacher.safetensors"), **options)
        losses.append(train(run)["total"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_crops_are_stored_once(drawn_people, tmp_path):
    train(TrainingConfig(**config(drawn_people, tmp_path)))
    (folder,) = (tmp_path / "cache").iterdir()
    written = (folder / "crops.npy").stat().st_mtime_ns
    second = config(drawn_people, tmp_path, seed=1) | {"output": str(tmp_path / "second")}
    train(TrainingConfig(**second))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    assert (folder / "crops.npy").stat().st_mtime_ns == written


def test_stored_crops_are_no_fixed_views(tmp_path):
    with pytest.raises(InputError, match=r"data\.stored_crops: expected one of the two, got true beside"):
        TrainingConfig(data=DataConfig(stored_crops=True, views=2)).validate()


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_holds_within_the_block_alone(allowed):
    def settings():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = settings()
    with pytest.raises(KeyError), tf32(allowed):
        assert settings() == (allowed, allowed)
        raise KeyError
    assert settings() == before
