"""Samples for several students: the bits of each student's own, with what they share loaded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cdkd_ext.data.dataset
from cdkd_ext.data import Augmentation, PoseDataset, load_coco_persons
from cdkd_ext.data.batches import EpochBatches, EpochLoader
from cdkd_ext.data.cached_views import FixedViews, build_student_views
from cdkd_ext.data.shared_samples import SharedBatches, SharedImages
from cdkd_ext.data.stored_crops import StoredCrops, build_stored_crops
from cdkd_ext.errors import InputError

SIZES = [(32, 32), (64, 64), (32, 32)]


@pytest.fixture(scope="module")
def datasets(drawn_people: Path) -> list[PoseDataset]:
    persons, joints = load_coco_persons(
        drawn_people / "train/annotations.json", drawn_people / "train/images"
    )
    options: dict[str, Any] = {
        "augmentation": Augmentation(half_body=0.3),
        "seed": 3,
        "labelled_fraction": 0.5,
    }
    return [PoseDataset(persons, joints, size=size, teacher_size=(128, 128), **options) for size in SIZES]


def assert_equal(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        assert torch.equal(got[name], expected[name]), name


def without_teacher(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in sample.items() if name != "teacher_image"}


def test_images_are_read_once(datasets: list[PoseDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [[dataset[index, 5] for dataset in datasets] for index in range(4)]
    reads: list[Path] = []
    read_image = cdkd_ext.data.dataset.read_image

    def counted(path: Path, *size: Any, **options: Any) -> Any:
        reads.append(path)
        return read_image(path, *size, **options)

    monkeypatch.setattr(cdkd_ext.data.dataset, "read_image", counted)
    shared = SharedImages(datasets)
    for index in range(4):
        samples = shared[index, 5]["students"]
        for i, (got, wanted) in enumerate(zip(samples, expected[index], strict=True)):
            assert_equal(got, wanted if i == 0 else without_teacher(wanted))
    assert len(reads) == 4


def test_a_loader_stacks_each_student(datasets: list[PoseDataset]) -> None:
    loader = EpochLoader(SharedImages(datasets), EpochBatches(range(6), 3, seed=0))
    batches = list(loader.epoch(2))
    alone = list(EpochLoader(datasets[1], EpochBatches(range(6), 3, seed=0)).epoch(2))
    for batch, own in zip(batches, alone, strict=True):
        assert_equal(loader.on_device(batch)["students"][1], without_teacher(own))


def test_fixed_views(datasets: list[PoseDataset], tmp_path: Path) -> None:
    few = [
        PoseDataset(dataset.persons[:5], dataset.joints, size=dataset.size, seed=dataset.seed)
        for dataset in datasets[:2]
    ]
    sources = [FixedViews(build_student_views(dataset, 2, tmp_path)) for dataset in few]
    keys = [(4, 1), (0, 0)]
    for got, source in zip(SharedBatches(sources).batch(keys)["students"], sources, strict=True):
        assert_equal(got, source.batch(keys))


def test_stored_crops_are_sent_once(datasets: list[PoseDataset], tmp_path: Path) -> None:
    folder = build_stored_crops(datasets[0], tmp_path)
    sources = [StoredCrops(dataset, folder) for dataset in datasets]
    shared = SharedBatches(sources)
    keys = [(4, 1), (0, 0), (7, 3)]
    batch = shared.batch(keys)
    assert ["stored_image" in own for own in batch["students"]] == [True, False, False]
    for i, (got, source) in enumerate(zip(shared.on_device(batch)["students"], sources, strict=True)):
        wanted = source.on_device(source.batch(keys))
        assert_equal(got, wanted if i == 0 else without_teacher(wanted))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, r"datasets\[1\]\.seed: expected 3, as of the first data set, got 4"),
        ({"padding": 1.5}, r"datasets\[1\]\.padding: expected 1\.25"),
        ({"augmentation": None}, r"datasets\[1\]\.augmentation: expected Augmentation"),
        ({"size": (64, 32)}, r"datasets\[1\]\.size: expected the aspect ratio of \(32, 32\)"),
    ],
)
def test_other_draws(datasets: list[PoseDataset], change: dict[str, Any], message: str) -> None:
    first = datasets[0]
    options = {"size": (32, 32), "augmentation": first.augmentation, "seed": 3, "labelled_fraction": 0.5}
    with pytest.raises(InputError, match=message):
        SharedImages([first, PoseDataset(first.persons, first.joints, **options | change)])


def test_other_people(datasets: list[PoseDataset]) -> None:
    first = datasets[0]
    persons = [replace(person) for person in first.persons]
    with pytest.raises(InputError, match=r"datasets\[1\]\.persons: expected those of the first data set"):
        SharedImages([first, PoseDataset(persons, first.joints, size=(32, 32))])
