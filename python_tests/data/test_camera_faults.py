"""Faults of cameras: reproducible, at the same places, stronger with the strength, and for the student alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cdkd_ext.data import Augmentation, PoseDataset, add_camera_faults, load_coco_persons
from cdkd_ext.data.cached_views import FixedViews, build_student_views
from cdkd_ext.data.sharded_views import ShardedViews, build_sharded_views
from cdkd_ext.data.stored_crops import StoredCrops, build_stored_crops
from cdkd_ext.errors import InputError


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def crop() -> np.ndarray:
    """A smooth crop with a spot at (20.4, 11.7)."""
    rows, columns = np.mgrid[:32, :32]
    spot = 40 + 180 * np.exp(-((columns - 20.4) ** 2 + (rows - 11.7) ** 2) / 18)
    return np.repeat(spot.round().astype(np.uint8)[..., None], 3, 2)


@pytest.fixture
def options(drawn_people: Path) -> dict:
    persons, joints = load_coco_persons(
        drawn_people / "train/annotations.json", drawn_people / "train/images"
    )
    return {"persons": persons[:6], "joints": joints, "size": (32, 32), "teacher_size": (64, 64), "seed": 3}


def test_a_draw_is_reproducible_and_draws_differ(crop):
    first, again, other = (add_camera_faults(crop, generator(seed), 0.8) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8 and first.shape == crop.shape
    assert (first != other).any() and (first != crop).any()


def test_strength_0_is_the_crop_and_more_is_further_away(crop):
    assert add_camera_faults(crop, generator(0), 0.0) is crop
    distance = [
        np.mean(
            [np.abs(add_camera_faults(crop, generator(i), s).astype(int) - crop).mean() for i in range(60)]
        )
        for s in (0.05, 0.3, 1.0)
    ]
    assert 0 < distance[0] < distance[1] < distance[2]
    for strength in (-0.1, 1.1):
        with pytest.raises(InputError, match=r"strength: expected a number in \[0, 1\]"):
            add_camera_faults(crop, generator(0), strength)


def test_faults_move_nothing(crop):
    """The spot's centroid stays where it is on average, and near it in every draw."""
    rows, columns = np.mgrid[:32, :32]
    found = []
    for seed in range(120):
        light = add_camera_faults(crop, generator(seed), 1.0)[..., 0].astype(float)
        near = np.hypot(columns - 20, rows - 12) < 7
        weight = np.clip(light - light[~near].max(), 0, None) * near + 1e-9 * near
        found.append([(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()])
    off = np.array(found) - [20.4, 11.7]
    assert np.abs(off.mean(0)).max() < 0.06
    assert np.abs(off).max() < 0.8


def test_each_fault_is_there_in_half_of_all_crops(crop):
    """What is drawn leaves a share of one in 2^5 untouched."""
    same = np.mean(
        [np.array_equal(add_camera_faults(crop, generator(seed), 1.0), crop) for seed in range(1500)]
    )
    assert 0.02 < same < 0.05


def test_the_student_s_crops_alone_have_them(options):
    clean = PoseDataset(**options, augmentation=Augmentation())
    faulty = PoseDataset(**options, augmentation=Augmentation(), camera_faults=1.0)
    differ = 0
    for key in [(0, 0), (1, 4), (5, 2)]:
        first, second, again = clean[key], faulty[key], faulty[key]
        assert torch.equal(second["image"], again["image"])
        for name in first.keys() - {"image"}:
            assert torch.equal(first[name], second[name]), name
        differ += not torch.equal(first["image"], second["image"])
    assert differ >= 2
    assert not torch.equal(
        faulty[0, 0]["image"], PoseDataset(**{**options, "seed": 4}, camera_faults=1.0)[0, 0]["image"]
    )


@pytest.mark.parametrize("sharded", [False, True])
def test_stored_views_hold_them_and_are_not_taken_for_clean_ones(options, tmp_path, sharded):
    def stored(dataset):
        if sharded:
            return FixedViews(ShardedViews(build_sharded_views(dataset, 2, tmp_path)))
        return FixedViews(build_student_views(dataset, 2, tmp_path))

    clean, faulty = PoseDataset(**options), PoseDataset(**options, camera_faults=1.0)
    keys = [(0, 1), (4, 0)]
    for dataset in (clean, faulty):
        batch = stored(dataset).batch(keys)
        for row, key in enumerate(keys):
            assert torch.equal(batch["image"][row], dataset[key]["image"])
    assert len(list(tmp_path.glob("views-*"))) == 2


def test_stored_crops_refuse_them(options, tmp_path):
    folder = build_stored_crops(PoseDataset(**options), tmp_path)
    with pytest.raises(InputError, match="camera_faults: expected 0 for stored crops"):
        StoredCrops(PoseDataset(**options, camera_faults=0.5), folder)
