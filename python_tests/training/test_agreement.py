"""Distillations without labels choose their best checkpoint by agreement with the teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.data import DataConfig, PoseDataset
from cdkd_ext.data.loading import load_people, load_validation, parted
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import evaluate_checkpoint
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.models import SimCCOutput, create_model
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import (
    DistillationConfig,
    ModelConfig,
    TrainingConfig,
    distill,
    distill_students,
    prepare_views,
    train,
)
from cdkd_ext.training.agreement import build_agreement, watch_people

STUDENT = ModelConfig(name="lowres_small", input_size=(32, 32))
TEACHER = ModelConfig(name="lowres_small", input_size=(64, 64))


@pytest.fixture(scope="module")
def teacher(drawn_people, tmp_path_factory):
    """Fresh weights whose distributions are sharp: a teacher that is sure of something."""
    joints = load_validation(DataConfig(root=str(drawn_people))).joints
    torch.manual_seed(3)
    network = create_model(TEACHER.spec(joints))
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    path = tmp_path_factory.mktemp("teacher") / "best.safetensors"
    save_model(network, path)
    return str(path)


def distilled(output, teacher, drawn_people, **data):
    options = {"images": str(drawn_people / "train/images"), "image_boxes": "whole", "near_duplicates": -1}
    return DistillationConfig(
        output=str(output),
        model=STUDENT,
        teacher=teacher,
        data=DataConfig(workers=0, **(options | data)),
        epochs=2,
        batch_size=16,
        cpu=True,
    )


def metrics_of(run):
    return json.loads((Path(run) / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(drawn_people, teacher, tmp_path_factory):
    config = distilled(tmp_path_factory.mktemp("whole") / "run", teacher, drawn_people)
    config.optimizer.schedule = "constant"
    return config, distill(config)


def test_the_best_checkpoint_is_the_one_that_agrees_most(whole):
    config, record = whole
    metrics = metrics_of(config.output)
    found = [epoch["agreement"] for epoch in metrics["epochs"]]
    assert metrics["best_agreement"] == max(found) and all(0 <= value <= 100 for value in found)
    assert record["agreement"] == found[-1] and record["people"] == 4
    # 44 people are trained on, in two batches of 16
    assert record["step"] == 2 * 2
    assert list((Path(config.output) / "views").glob("keypoints-*.npz"))


def test_going_on_gives_the_same(whole, tmp_path, capsys):
    config = replace(whole[0], output=str(tmp_path / "parts"))
    distill(replace(config, epochs=1))
    record = distill(config, resume=True)
    printed = capsys.readouterr().out
    assert "validation: agreement with the teacher, 4 people who are not trained on" in printed
    assert f"agreement with the teacher {record['agreement']:.2f} percent, 4 people" in printed
    for name in ("last.safetensors", "best.safetensors"):
        assert (Path(whole[0].output) / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    first, second = (metrics_of(one.output) for one in (whole[0], config))
    assert first["best_agreement"] == second["best_agreement"]


def test_a_run_that_changes_its_metric_does_not_mix_them(drawn_people, teacher, tmp_path):
    """An epoch's number is no percentage."""
    config = distilled(tmp_path / "run", teacher, drawn_people, metric="none")
    record = distill(config)
    assert "agreement" not in record and metrics_of(tmp_path / "run")["best_epoch"] == 2
    distill(replace(config, epochs=3, data=replace(config.data, metric="agreement")), resume=True)
    metrics = metrics_of(tmp_path / "run")
    assert metrics["best_agreement"] == metrics["epochs"][-1]["agreement"]


def test_students_and_stored_views_leave_the_same_people_out(drawn_people, teacher, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    config = distilled(tmp_path / "alone", teacher, drawn_people, views=1, cache=cache)
    alone = distill(config)
    seen = []
    view = PoseDataset.view
    monkeypatch.setattr(
        PoseDataset, "view", lambda self, *given: seen.append(len(self)) or view(self, *given)
    )
    # what is stored is found again
    prepare_views(replace(config, seed=5))
    assert not seen
    configs = [
        replace(config, output=str(tmp_path / name), model=replace(STUDENT, input_size=(size, size)))
        for name, size in (("small", 32), ("large", 64))
    ]
    records = distill_students(configs)
    assert records[0]["agreement"] == alone["agreement"] and "agreement" in records[1]
    small, own = (tmp_path / name / "best.safetensors" for name in ("small", "alone"))
    assert small.read_bytes() == own.read_bytes()
    assert len(list((tmp_path / "cache").glob("keypoints-*.npz"))) == 1


def test_a_perfect_student_agrees_with_its_teacher(drawn_people, teacher, tmp_path):
    """The teacher's own network, at its own size; and others, which do not."""
    config = replace(distilled(tmp_path / "run", teacher, drawn_people), flip_test=False)
    network, accelerator = load_model(teacher), make_accelerator(cpu=True)
    people = watch_people(
        config, load_people(config.data, tmp_path, teacher_joints=lambda: network.spec.joints)
    )
    asked = FrozenTeacher(load_model(teacher))
    measure = build_agreement(config, people, network.spec, asked, tmp_path, accelerator)
    assert measure(network) == {"agreement": 100.0, "people": 4, "boxes": "those of the people kept aside"}
    small = create_model(replace(network.spec, input_size=(32, 32)))
    measure = build_agreement(config, people, small.spec, asked, tmp_path, accelerator)
    assert measure(small)["agreement"] < 50
    assert len(list(tmp_path.glob("keypoints-*.npz"))) == 1


def test_who_is_kept_aside(drawn_people, teacher, tmp_path):
    config = distilled(tmp_path / "run", teacher, drawn_people, root=str(drawn_people), val=None)
    people = load_people(config.data, tmp_path)
    found = watch_people(config, people)
    assert len(found.watched) == 9 and len(found.train) + len(found.footage.persons) == 96 - 9
    names = [(person.image_path, person.annotation_id) for person in found.watched]
    left = [*found.train, *found.footage.persons]
    assert not {(person.image_path, person.annotation_id) for person in left} & set(names)
    assert not any(person.annotated.any() or person.keypoints.any() for person in found.watched)
    # a choice of its own, whatever the run's seed
    again = watch_people(replace(config, seed=3), people)
    assert [person.image_path for person in again.watched] == [path for path, _ in names]
    few = watch_people(replace(config, watched_people=2), people)
    assert len(few.watched) == 2
    for metric in ("none", "pckh"):
        assert watch_people(replace(config, data=replace(config.data, metric=metric)), people) is people
    nineteen = replace(people, train=people.train[:19], footage=None)
    assert watch_people(config, nineteen) is nineteen
    asked = replace(config, data=replace(config.data, metric="agreement"))
    assert len(watch_people(asked, nineteen).watched) == 1


def test_people_to_validate_on_are_watched_if_that_is_wanted(drawn_people, teacher, tmp_path):
    root = {"root": str(drawn_people), "images": None, "image_boxes": None}
    config = distilled(tmp_path / "run", teacher, drawn_people, **root)
    people = load_people(config.data, tmp_path)
    assert watch_people(config, people) is people
    config = replace(config, data=replace(config.data, metric="agreement"), epochs=1)
    found = watch_people(config, load_people(config.data, tmp_path))
    assert found.val is None and len(found.watched) == 12 and len(found.train) == 48
    assert "agreement" in distill(config)


def test_parts_are_whole_and_in_order():
    for people, most, count in ((2, 128, 1), (48, 128, 4), (5000, 128, 128), (5000, 7, 7)):
        aside, rest = parted(people, most, 1)
        assert len(aside) == count and sorted(aside + rest) == list(range(people))
        assert aside == sorted(aside) and rest == sorted(rest)
    assert parted(500, 50, 1) != parted(500, 50, 2)


def test_a_teacher_of_this_package_says_where_and_how_surely(teacher):
    network = load_model(teacher)
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(0))
    said = FrozenTeacher(network).predict(images)
    with torch.no_grad():
        output: SimCCOutput = network.eval()(images)
    for axis, logits in enumerate((output.logits_x, output.logits_y)):
        pixels = logits.argmax(-1) / network.spec.split_ratio
        torch.testing.assert_close(said.keypoints[..., axis], pixels, atol=1e-3, rtol=0)
    shares = []
    for logits in (output.logits_x, output.logits_y):
        share = logits.double().softmax(-1).numpy()
        rows = share.reshape(-1, share.shape[-1])
        shares.append([row[max(0, row.argmax() - 4) : row.argmax() + 5].sum() for row in rows])
    np.testing.assert_allclose(said.confidence.numpy().ravel(), np.min(shares, axis=0), atol=1e-3)


def test_mistakes_are_named(drawn_people, teacher, tmp_path, monkeypatch):
    data = DataConfig(root=str(drawn_people), metric="agreement")
    with pytest.raises(
        InputError, match=r"data\.metric: expected a metric of labels, or a teacher, got agree"
    ):
        train(TrainingConfig(output=str(tmp_path / "run"), model=STUDENT, data=data))
    with pytest.raises(InputError, match=r"data\.metric: expected a metric of labels: an evaluation asks no"):
        evaluate_checkpoint(teacher, data)
    config = distilled(tmp_path / "run", teacher, drawn_people)
    with pytest.raises(InputError, match=r"watched_people: expected a positive number, got 0"):
        distill(replace(config, watched_people=0))
    unsure = FrozenTeacher.predict
    monkeypatch.setattr(
        FrozenTeacher,
        "predict",
        lambda self, images: unsure(self, images)._replace(confidence=torch.zeros(len(images), 16)),
    )
    wanted = replace(config, data=replace(config.data, metric="agreement"))
    with pytest.raises(InputError, match=r"data\.metric: expected a teacher that is sure of some"):
        distill(wanted)
    assert metrics_of_last(distill(replace(config, epochs=1)), tmp_path / "run")


def metrics_of_last(record, run):
    return "agreement" not in record and metrics_of(run)["best_epoch"] == 1
