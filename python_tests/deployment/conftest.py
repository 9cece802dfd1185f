"""Runs with networks whose maxima are no ties, as trained ones' are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cdkd_ext.checkpoints import save_model
from cdkd_ext.joints import JointSet
from cdkd_ext.models import PoseNetwork, create_model


def _decided(joints: JointSet, head: str, **options: object) -> PoseNetwork:
    torch.manual_seed(3)
    network = create_model(
        "lowres_small",
        input_size=(32, 32),
        num_joints=len(joints),
        joints=joints,
        head=head,
        padding=1.5,
        **options,
    )
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    return network.eval()


@pytest.fixture(scope="session")
def decided_network() -> Callable[..., PoseNetwork]:
    """Makes a small network of fresh weights for a joint set and a head."""
    return _decided


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a run's folder: a network's checkpoint, and the configuration of its data."""

    def write(network: PoseNetwork, root: Path | None) -> Path:
        folder = tmp_path_factory.mktemp("run")
        save_model(network, folder / "best.safetensors")
        if root is not None:
            (folder / "config.yaml").write_text(f"data:\n  root: {root}\n")
        return folder

    return write
