"""Unbiased crops from the data set to the predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cdkd_ext.data import PoseDataset, crop_matrix, region_from_box
from cdkd_ext.data.cached_views import later_options
from cdkd_ext.data.stored_crops import StoredCrops
from cdkd_ext.distillation import TeacherSpec
from cdkd_ext.errors import InputError
from cdkd_ext.inference import Predictor
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.methods.tokenpose import TokenPoseCodec, TokenPoseOutput
from cdkd_ext.models import create_model


@pytest.fixture(scope="module")
def people(drawn_people: Any) -> Any:
    from cdkd_ext.data import load_coco_persons

    folder = drawn_people / "val"
    return load_coco_persons(folder / "annotations.json", folder / "images")


def test_samples_are_of_their_own_convention(people: Any) -> None:
    persons, joints = people
    dataset = PoseDataset(
        persons[:1], joints, size=(32, 32), teacher_size=(64, 64), unbiased=True, teacher_unbiased=True
    )
    sample = dataset[0]
    region = region_from_box(persons[0].box, (32, 32))
    matrix = crop_matrix(region, (32, 32), unbiased=True)
    expected = persons[0].keypoints @ matrix[:, :2].T + matrix[:, 2]
    annotated = persons[0].annotated.astype(bool)
    np.testing.assert_allclose(sample["keypoints"][annotated], expected[annotated], rtol=1e-5)
    plain = PoseDataset(persons[:1], joints, size=(32, 32), teacher_size=(64, 64))[0]
    assert not torch.equal(sample["image"], plain["image"])
    assert not torch.equal(sample["teacher_image"], plain["teacher_image"])


def test_stored_views_of_another_convention_have_another_identity(people: Any) -> None:
    persons, joints = people

    def make(**options: bool) -> PoseDataset:
        return PoseDataset(persons, joints, size=(32, 32), **options)

    assert later_options(make()) == {}
    assert later_options(make(unbiased=True)) != later_options(make(teacher_unbiased=True))


def test_stored_crops_beside_a_teacher_are_refused(people: Any, tmp_path: Any) -> None:
    persons, joints = people
    dataset = PoseDataset(persons, joints, size=(32, 32), teacher_size=(64, 64), unbiased=True)
    with pytest.raises(InputError, match="dataset: expected crops of HRNet's convention for both networks"):
        StoredCrops(dataset, tmp_path)


def test_a_network_tells_its_teachers_and_its_predictor(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that has seen a joint in cell (0, 0) says the region's corner, in pixels of the image."""
    network = create_model(
        "hrnet_w8_small", input_size=(32, 32), num_joints=16, head="tokenpose_b", depth=1, joints=MPII_JOINTS
    )
    assert TeacherSpec.of(network).unbiased_crop
    maps = torch.zeros(1, 16, 8, 8)
    maps[:, :, 0, 0] = 1
    monkeypatch.setattr(network, "forward", lambda images: TokenPoseOutput(maps))
    poses = Predictor(network, flip_test=False, padding=1.0)(
        np.zeros((100, 100, 3), np.uint8), [(20.0, 30.0, 40.0, 40.0)]
    )
    np.testing.assert_allclose(poses.keypoints[0], np.tile([[20.0, 30.0]], (16, 1)), atol=1e-4)
    assert TokenPoseCodec((32, 32)).input_size == network.input_size
