"""Trainings on footage without labels, alone and beside labelled people."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import DataConfig
from cdkd_ext.errors import InputError
from cdkd_ext.images import read_image, save_image
from cdkd_ext.training import (
    DistillationConfig,
    DistillationTask,
    ModelConfig,
    TrainingConfig,
    distill,
    train,
)

STUDENT = ModelConfig(name="hrnet_w8_small", input_size=(32, 32))
TEACHER = ModelConfig(name="hrnet_w8_small", input_size=(64, 64))


@pytest.fixture(scope="module")
def teacher(drawn_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher")
    data = DataConfig(root=str(drawn_people), workers=0)
    train(TrainingConfig(output=str(output), model=TEACHER, data=data, epochs=1, batch_size=16, cpu=True))
    return output


def distilled(output: Path, teacher: Path, **data) -> DistillationConfig:
    return DistillationConfig(
        output=str(output),
        model=STUDENT,
        teacher=str(teacher),
        data=DataConfig(workers=0, **data),
        epochs=2,
        batch_size=8,
        cpu=True,
    )


def footage_of(drawn_people: Path) -> dict[str, str]:
    return {"images": str(drawn_people / "val/images"), "image_boxes": "whole"}


def test_footage_alone(drawn_people, teacher, tmp_path, capsys) -> None:
    """The teacher names the joints, nothing is validated, and the last checkpoint is the best."""
    config = distilled(tmp_path / "run", teacher, **footage_of(drawn_people))
    record = distill(config)
    printed = capsys.readouterr().out
    assert "validation: none, the last checkpoint is the best" in printed
    # frames are turned upright, whatever data.upright says
    assert "joints that mirror each other: " in printed and "as stored" not in printed
    assert "footage: 12 people in 12 images" in printed and "not validated; checkpoints in" in printed
    assert record["epoch"] == 2
    run = tmp_path / "run"
    assert load_model(run).spec.joints == load_model(teacher).spec.joints
    assert (run / "best.safetensors").read_bytes() == (run / "last.safetensors").read_bytes()
    assert json.loads((run / "metrics.json").read_text())["best_epoch"] == 2


def test_going_on_gives_the_same(drawn_people, teacher, tmp_path) -> None:
    whole = distilled(tmp_path / "whole", teacher, unlabelled_share=1.0, **footage_of(drawn_people))
    whole.optimizer.schedule = "constant"
    distill(whole)
    parts = replace(whole, output=str(tmp_path / "parts"))
    distill(replace(parts, epochs=1))
    distill(parts, resume=True)
    first, second = (tmp_path / name / "last.safetensors" for name in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", ["images", "views", "stored_crops"])
def test_beside_labelled_people(drawn_people, teacher, tmp_path, monkeypatch, capsys, kind: str) -> None:
    """Every batch holds the told share, and the labelled people keep their labels."""
    options = {"images": {}, "views": {"views": 2}, "stored_crops": {"stored_crops": True}}[kind]
    config = distilled(
        tmp_path / "run",
        teacher,
        root=str(drawn_people),
        unlabelled_share=0.25,
        **footage_of(drawn_people),
        **options,
    )
    shares = []

    forward = DistillationTask.forward

    def watched(task, images, teacher_images, keypoints, annotated, **options):
        labelled = options["labelled"]
        shares.append(float(1 - labelled.mean()))
        # those without labels show none
        assert float(annotated[labelled == 0].sum()) == 0 < float(annotated[labelled > 0].sum())
        return forward(task, images, teacher_images, keypoints, annotated, **options)

    monkeypatch.setattr(DistillationTask, "forward", watched)
    record = distill(config)
    # 60 people
    assert len(shares) == 2 * (60 // 8) and set(shares) == {0.25}
    assert "pckh" in record
    assert "; labelled images: as stored (data.upright turns them)" in capsys.readouterr().out


def test_footage_with_labelled_validation_alone(drawn_people, teacher, tmp_path) -> None:
    config = distilled(
        tmp_path / "run", teacher, root=str(drawn_people), train=None, **footage_of(drawn_people)
    )
    assert "pckh" in distill(config)


def test_labelled_people_without_validation(drawn_people, tmp_path) -> None:
    data = DataConfig(root=str(drawn_people), val=None, workers=0)
    config = TrainingConfig(output=str(tmp_path), model=STUDENT, data=data, epochs=1, batch_size=16, cpu=True)
    assert "pckh" not in train(config)
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"unlabelled_share": 1.5},
            r"data\.unlabelled_share: expected a number in \[0, 1\], or None, got 1\.5",
        ),
        ({"unlabelled_share": 0.5}, r"data\.unlabelled_share: expected 1, for there is nobody with labels"),
        ({"image_boxes": None}, r"data\.detector and data\.image_boxes: expected one of them.*, got neither"),
        ({"detector": "yolo.onnx"}, r"data\.detector and data\.image_boxes: .*, got both"),
        ({"frames": 0}, r"data\.frames: expected a positive number"),
        ({"images": "nowhere"}, r"data\.images: expected a folder, .*, got nowhere, which does not exist"),
    ],
)
def test_mistakes_leave_no_run(drawn_people, teacher, tmp_path, data, message: str) -> None:
    config = distilled(tmp_path / "run", teacher, **{**footage_of(drawn_people), **data})
    with pytest.raises(InputError, match=message):
        distill(config)
    assert not (tmp_path / "run/config.yaml").exists()


def test_nobody_learns_from_footage_without_a_teacher(drawn_people, tmp_path) -> None:
    config = TrainingConfig(output=str(tmp_path), data=DataConfig(**footage_of(drawn_people)))
    with pytest.raises(InputError, match=r"data\.images: expected nothing: without a teacher"):
        train(config)
    data = DataConfig(root=str(drawn_people), train=None)
    with pytest.raises(InputError, match=r"data\.train: expected annotations to train on, or footage"):
        train(TrainingConfig(output=str(tmp_path), data=data))


@pytest.mark.parametrize(("side", "told"), [(40, True), (150, False)])
def test_people_of_few_pixels_are_told_of(drawn_people, teacher, tmp_path, capsys, side, told) -> None:
    """A teacher of 64 pixels is asked about people who have 50 or 188 in their crops."""
    (tmp_path / "images").mkdir()
    for name in sorted(os.listdir(drawn_people / "val/images"))[:8]:
        image = read_image(drawn_people / "val/images" / name)
        save_image(cv2.resize(image, (side, side // 2 if told else side)), tmp_path / "images" / name)
    config = distilled(tmp_path / "run", teacher, images=str(tmp_path / "images"), image_boxes="whole")
    distill(replace(config, epochs=1))
    said = "the teacher sees crops of 64 pixels, of which half of the footage's people have 25 or fewer"
    assert (said in capsys.readouterr().out) is told
