"""What the tests of every method share: a short training on drawn people, and crops beside their mirror images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from cdkd_ext.data import PoseDataset, load_coco_persons
from cdkd_ext.inference import predict_crops
from cdkd_ext.joints import MPII_JOINTS, JointSet
from cdkd_ext.methods import LabelLossOptions
from cdkd_ext.models import PoseNetwork, create_model
from cdkd_ext.training import DistillationTask

Crops = tuple[Tensor, Tensor, Tensor]


class Trained(NamedTuple):
    """What a short training gave.

    Attributes:
        network: in evaluation mode.
        first: mean loss of the first steps.
        last: mean loss of the last steps.
        error: mean distance of the predicted joints from the annotated ones, in pixels.
        constant: the same for the mean place of each joint, which is the best prediction without looking.
    """

    network: PoseNetwork
    first: float
    last: float
    error: float
    constant: float


@pytest.fixture(scope="session")
def joints() -> JointSet:
    """The joints of drawn people."""
    return MPII_JOINTS


@pytest.fixture(scope="session")
def crops_of(drawn_people: Path, joints: JointSet) -> Callable[[tuple[int, int]], Crops]:
    """Crops, keypoints and annotated joints of the 48 drawn people, all with labels, at a size."""

    def load(size: tuple[int, int]) -> Crops:
        folder = drawn_people / "train"
        persons, found = load_coco_persons(folder / "annotations.json", folder / "images")
        assert found.names == joints.names
        dataset = PoseDataset(persons, found, size=size)
        samples = [dataset[index] for index in range(len(dataset))]
        images, keypoints, annotated = (
            torch.stack([sample[name] for sample in samples]) for name in ("image", "keypoints", "annotated")
        )
        return images, keypoints, annotated

    return load


@pytest.fixture(scope="session")
def trained(crops_of: Callable[[tuple[int, int]], Crops]) -> Callable[..., Trained]:
    """Trains a network of a head on the first drawn people for some steps, and asks it about them."""

    def train(
        head: str,
        *,
        name: str = "hrnet_w8_small",
        side: int = 32,
        steps: int = 40,
        rate: float = 2e-3,
        people: int = 48,
        **options: Any,
    ) -> Trained:
        images, keypoints, annotated = (values[:people] for values in crops_of((side, side)))
        torch.manual_seed(0)
        network = create_model(
            name, input_size=(side, side), num_joints=keypoints.shape[1], head=head, **options
        )
        task = DistillationTask(network).train()
        optimizer = torch.optim.AdamW(task.parameters(), rate)
        losses = []
        for step in range(steps):
            batch = torch.arange(16 * step, 16 * (step + 1)) % people if people > 16 else torch.arange(people)
            total = task(images[batch], None, keypoints[batch], annotated[batch], progress=step / steps)[
                "total"
            ]
            optimizer.zero_grad()
            total.backward()
            # of the first steps, whose loss can be large; the rate falls to zero
            torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimizer.step()
            losses.append(total.item())
        network.eval()
        found, _ = predict_crops(network, images)
        count = annotated.sum(0)[:, None]
        middle = (keypoints * annotated[..., None]).sum(0) / count
        return Trained(
            network,
            sum(losses[:3]) / 3,
            sum(losses[-3:]) / 3,
            _distance(found, keypoints, annotated),
            _distance(middle.expand_as(keypoints), keypoints, annotated),
        )

    return train


class ByHeart(NamedTuple):
    """What learning a few people by heart gave.

    Attributes:
        losses: of each step.
        error: summed distance of the predicted joints from the annotated ones, in pixels.
        constant: the same for the mean place of each joint.
    """

    losses: list[float]
    error: float
    constant: float


@pytest.fixture(scope="session")
def learnt_by_heart(crops_of: Callable[[tuple[int, int]], Crops]) -> Callable[..., ByHeart]:
    """Trains a network of heatmaps on four people at 64x64, from wide targets, which are learnt sooner."""

    def learn(name: str, *, steps: int, planned: int) -> ByHeart:
        images, keypoints, annotated = (values[:4] for values in crops_of((64, 64)))
        torch.manual_seed(0)
        network = create_model(name, input_size=(64, 64), num_joints=keypoints.shape[1], head="heatmap")
        loss = network.spec.method.label_loss(network, LabelLossOptions(heatmap_sigma=2.0))
        optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
        losses = []
        for step in range(steps):
            total = loss(network(images), keypoints, annotated, step / planned)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.item())
        found, _ = predict_crops(network.eval(), images)
        middle = (keypoints * annotated[..., None]).sum(0) / annotated.sum(0)[:, None]
        error, constant = (
            float(((points - keypoints).norm(dim=-1) * annotated).sum()) for points in (found, middle)
        )
        return ByHeart(losses, error, constant)

    return learn


def _distance(found: Tensor, keypoints: Tensor, annotated: Tensor) -> float:
    distances = (found - keypoints).norm(dim=-1) * annotated
    return float(distances.sum() / annotated.sum())
