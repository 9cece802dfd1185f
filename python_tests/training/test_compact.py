"""Trainings with a compact teacher cache: like dense ones, and one pass of the teacher for several students."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdkd_ext.data import DataConfig
from cdkd_ext.errors import InputError
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import (
    DistillationConfig,
    ModelConfig,
    SAPEConfig,
    TrainingConfig,
    distill_students,
    prepare_views,
    train,
)

STUDENT = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)
TEACHER = ModelConfig(name="hrnet_w8_small", input_size=(64, 64), split_ratio=2.0)


@pytest.fixture(scope="module")
def teacher(drawn_people, tmp_path_factory):
    output = tmp_path_factory.mktemp("teacher")
    data = DataConfig(root=str(drawn_people), workers=0)
    train(TrainingConfig(output=str(output), model=TEACHER, data=data, epochs=1, batch_size=16))
    return output


def distilled(output, teacher, data, **changes) -> DistillationConfig:
    config = DistillationConfig(
        output=str(output),
        model=STUDENT,
        teacher=str(teacher),
        data=data,
        sape=SAPEConfig(enabled=True),
        epochs=2,
        batch_size=16,
    )
    return replace(config, **changes)


def test_compact_teacher_outputs_train_like_dense_ones(drawn_people, tmp_path, teacher):
    """One step on the same views: only the 8-bit storage differs."""
    cache = str(tmp_path / "cache")
    records = {}
    for kind in ("dense", "compact"):
        data = DataConfig(root=str(drawn_people), workers=0, views=2, cache=cache, teacher_cache=kind)
        records[kind] = train(distilled(tmp_path / kind, teacher, data, epochs=1, batch_size=48))
    for term, tolerance in (("simcc", 1e-6), ("sape", 1e-6), ("cca", 3e-4)):
        assert records["compact"][term] == pytest.approx(records["dense"][term], abs=tolerance)
    assert {path.name.split("-")[0] for path in Path(cache).iterdir()} == {"views", "teacher", "compact"}


def test_students_of_several_sizes_share_one_compact_pass(drawn_people, tmp_path, teacher, monkeypatch):
    asked = []
    call = FrozenTeacher.__call__
    monkeypatch.setattr(FrozenTeacher, "__call__", lambda self, x: asked.append(len(x)) or call(self, x))
    data = DataConfig(
        root=str(drawn_people),
        workers=0,
        views=1,
        cache=str(tmp_path / "cache"),
        teacher_cache="compact",
        view_images="jpeg",
    )
    for size in (32, 64):
        config = distilled(tmp_path / str(size), teacher, data, epochs=1)
        config.model = replace(STUDENT, input_size=(size, size))
        config.sape.enabled = False
        assert train(config)["cca"] > 0
    assert sum(asked) == 48


def test_features_are_kept_for_whoever_uses_them(drawn_people, tmp_path, teacher):
    data = DataConfig(
        root=str(drawn_people), workers=0, views=1, cache=str(tmp_path / "cache"), teacher_cache="compact"
    )
    first, second = (distilled(tmp_path / name, teacher, data, epochs=1) for name in ("a", "b"))
    first.sape = SAPEConfig(enabled=False)
    records = distill_students([first, second])
    assert "sape" not in records[0] and records[1]["sape"] > 0


@pytest.mark.parametrize(("field", "value"), [("teacher_cache", "sparse"), ("view_images", "png")])
def test_an_unknown_form_of_storage_is_named(field, value):
    with pytest.raises(InputError, match=rf"data\.{field}: expected one of .*, got '{value}'"):
        TrainingConfig(data=DataConfig(**{field: value})).validate()


def test_a_damaged_cache_ends_a_training_with_one_line(drawn_people, tmp_path, teacher):
    data = DataConfig(
        root=str(drawn_people), workers=0, views=1, cache=str(tmp_path / "cache"), teacher_cache="compact"
    )
    config = distilled(tmp_path / "run", teacher, data, epochs=1)
    prepare_views(config)
    (shard,) = (tmp_path / "cache").glob("compact-*/*.npy")
    content = bytearray(shard.read_bytes())
    start = len(content) // 2
    content[start:] = bytes(len(content) - start)
    shard.write_bytes(content)
    with pytest.raises(
        InputError, match=r"00000\.npy: expected a whole shard; delete it and run .*, got other bytes"
    ):
        train(config)
    shard.unlink()
    assert train(config)["cca"] > 0
