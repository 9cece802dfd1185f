"""Trainings on stored views and their mirror images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cdkd_ext.data import DataConfig, Photometric
from cdkd_ext.errors import InputError
from cdkd_ext.training import (
    DistillationConfig,
    ModelConfig,
    SAPEConfig,
    TrainingConfig,
    distill,
    distill_students,
    train,
)

STUDENT = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)
LARGE = replace(STUDENT, input_size=(64, 64))


@pytest.fixture(scope="module")
def teacher(drawn_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher")
    data = DataConfig(root=str(drawn_people), workers=0)
    train(TrainingConfig(output=str(output), model=LARGE, data=data, epochs=1, batch_size=16))
    return output


def distilled(drawn_people: Path, output: Path, teacher: Path, **changes: Any) -> DistillationConfig:
    data = DataConfig(
        root=str(drawn_people), workers=0, views=1, mirror_views=True, cache=str(output.parent / "cache")
    )
    config = DistillationConfig(
        output=str(output),
        model=STUDENT,
        teacher=str(teacher),
        data=data,
        epochs=1,
        batch_size=16,
        sape=SAPEConfig(enabled=False),
    )
    return replace(config, **changes)


def test_dense_and_compact_caches_mirror_alike(drawn_people, tmp_path, teacher):
    records = []
    for kind in ("dense", "compact"):
        config = distilled(drawn_people, tmp_path / kind, teacher, batch_size=48)
        config.data.teacher_cache = kind
        records.append(distill(config))
    assert records[0]["simcc"] == pytest.approx(records[1]["simcc"], abs=1e-6)
    assert records[0]["cca"] == pytest.approx(records[1]["cca"], abs=1e-3)


def test_mirror_images_are_seen(drawn_people, tmp_path, teacher):
    on = distill(distilled(drawn_people, tmp_path / "on", teacher))
    off = distilled(drawn_people, tmp_path / "off", teacher)
    off.data.mirror_views = False
    assert on["simcc"] != distill(off)["simcc"]


def test_students_of_several_sizes_end_as_alone(drawn_people, tmp_path, teacher):
    def both(name: str) -> list[DistillationConfig]:
        small = distilled(drawn_people, tmp_path / name / "a", teacher, seed=5, ema_decay=0.5)
        return [small, replace(small, output=str(tmp_path / name / "b"), model=LARGE, ema_decay=0.0)]

    together, alone = both("together"), both("alone")
    distill_students(together, seed=5)
    for first, second in zip(together, alone, strict=True):
        distill(second)
        a, b = (load_file(Path(config.output) / "last.safetensors") for config in (first, second))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_heatmaps_mirror_with_their_features(drawn_people, tmp_path):
    """SAPE learns from a heatmap teacher's maps, which do mirror."""
    small, large = (replace(model, head="heatmap") for model in (STUDENT, LARGE))
    data = DataConfig(root=str(drawn_people), workers=0)
    config = TrainingConfig(output=str(tmp_path / "t"), model=large, data=data, epochs=1, batch_size=16)
    train(config)
    taught = distilled(
        drawn_people, tmp_path / "s", tmp_path / "t", model=small, sape=SAPEConfig(enabled=True)
    )
    taught.cca.enabled = False
    assert distill(taught)["sape"] > 0


def test_what_does_not_mirror_is_refused(drawn_people, tmp_path, teacher):
    with pytest.raises(InputError, match=r"data\.mirror_views: expected one of the two: feature maps"):
        distill(distilled(drawn_people, tmp_path / "run", teacher, sape=SAPEConfig(enabled=True)))
    with pytest.raises(InputError, match=r"data\.mirror_views: expected fixed views to mirror"):
        TrainingConfig(data=DataConfig(mirror_views=True)).validate()


@pytest.mark.parametrize(("name", "value"), [("teacher_cache", "compact"), ("view_images", "jpeg")])
def test_how_views_are_stored_needs_views(name, value):
    with pytest.raises(InputError, match=rf"data\.{name}: .* got {value} without data\.views"):
        TrainingConfig(data=DataConfig(**{name: value})).validate()


def test_other_pixels_are_refused_for_stored_crops():
    with pytest.raises(
        InputError, match=r"data\.stored_crops: expected one of the two, got true beside data\.camera"
    ):
        TrainingConfig(data=DataConfig(stored_crops=True, camera_faults=0.5)).validate()
    with pytest.raises(InputError, match=r"data\.stored_crops: .* got true beside data\.photometric"):
        TrainingConfig(data=DataConfig(stored_crops=True, photometric=Photometric(hue=0.1))).validate()
    with pytest.raises(InputError, match=r"data\.camera_faults: expected a number in \[0, 1\]"):
        TrainingConfig(data=DataConfig(camera_faults=2.0)).validate()
