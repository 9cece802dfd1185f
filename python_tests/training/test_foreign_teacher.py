"""Somebody else's network teaches a student, from labels or without any."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from cdkd_ext.cli import main
from cdkd_ext.data import Augmentation, DataConfig
from cdkd_ext.data.loading import load_people
from cdkd_ext.distillation import CCA, SAPE, HeatmapCCA, HeatmapLoss
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.teachers import AskedOnce, ForeignTeacher, TeacherDescription, TeacherFile, TeacherOptions
from cdkd_ext.training import (
    CCAConfig,
    DistillationConfig,
    DistillationTask,
    ModelConfig,
    SAPEConfig,
    distill,
    distill_students,
)
from cdkd_ext.training.pair import cca_between

STUDENT = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)


@pytest.fixture
def config(drawn_people, write_teacher, tmp_path):
    write_teacher(tmp_path / "teacher.onnx")
    return DistillationConfig(
        output=str(tmp_path / "run"),
        model=STUDENT,
        teacher=str(tmp_path / "teacher.onnx"),
        teacher_options=TeacherOptions(preset="hrnet", threads=1),
        data=DataConfig(root=str(drawn_people), workers=0, labelled_fraction=0.0, augmentation=None),
        epochs=1,
        batch_size=48,
        cpu=True,
    )


def test_without_a_label_stored_outputs_teach_as_a_live_teacher_does(config, tmp_path, capsys):
    live = distill(config)
    assert live["simcc"] == 0 and live["cca"] > 0 and "sape" not in live
    printed = capsys.readouterr().out
    assert "teacher.onnx: right_ankle, right_knee" in printed
    data = replace(config.data, views=1, cache=str(tmp_path / "cache"))
    stored = distill(replace(config, output=str(tmp_path / "stored"), data=data))
    # outputs are stored in half precision
    assert stored["cca"] == pytest.approx(live["cca"], rel=2e-3)
    (folder,) = (tmp_path / "cache").glob("teacher-*")
    assert {path.stem for path in folder.glob("*.npy")} == {"logits_x", "logits_y", "confidence"}


def test_other_options_are_other_outputs(config, tmp_path):
    data = replace(config.data, views=1, cache=str(tmp_path / "cache"))
    kinds = ({}, {}, {"flip": True}, {"targets": "keypoints"}, {"height": 16}, {"threads": 2})
    for number, options in enumerate(kinds):
        chosen = replace(config.teacher_options, **options)
        distill(replace(config, output=str(tmp_path / str(number)), data=data, teacher_options=chosen))
    assert len(list((tmp_path / "cache").glob("teacher-*"))) == 4


def test_other_joints_are_matched_and_the_rest_is_left_out(config, write_teacher, tmp_path, capsys):
    write_teacher(tmp_path / "teacher.onnx", joints=17)
    assert distill(replace(config, model=replace(STUDENT, input_size=(64, 64))))["cca"] > 0
    printed = capsys.readouterr().out
    assert "pelvis from the middle of left_hip and right_hip" in printed
    assert "nothing for upper_neck, head_top" in printed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_a_teacher_that_is_asked_once_teaches_the_same(config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = replace(
        config, teacher_options=replace(config.teacher_options, ask="people"), epochs=2, batch_size=8
    )
    on_cpu = distill(config)
    for graphs in (True, False):
        output = str(tmp_path / f"gpu_{graphs}")
        on_gpu = distill(replace(config, output=output, cpu=False, cuda_graphs=graphs))
        assert on_gpu["cca"] == pytest.approx(on_cpu["cca"], rel=0.02)


def test_a_teacher_that_is_asked_once_about_people_says_what_it_says_of_plain_views(config, tmp_path):
    keypoints = replace(config.teacher_options, targets="keypoints")
    views = distill(replace(config, teacher_options=keypoints))
    once = replace(keypoints, ask="people")
    people = distill(replace(config, teacher_options=once, output=str(tmp_path / "people")))
    assert people["cca"] == pytest.approx(views["cca"], rel=1e-4)
    assert len(list((tmp_path / "people" / "views").glob("keypoints-*.npz"))) == 1


def test_one_answer_serves_views_of_all_kinds_and_students_of_all_sizes(config, tmp_path):
    once = replace(config.teacher_options, ask="people", flip=True)
    cache = str(tmp_path / "cache")
    kinds = {
        "live": {},
        "stored": {"views": 2, "mirror_views": True},
        "shards": {"views": 2, "view_images": "jpeg"},
        "crops": {"stored_crops": True},
    }
    for name, changes in kinds.items():
        data = replace(config.data, augmentation=Augmentation(), cache=cache, **changes)
        run = replace(config, teacher_options=once, data=data)
        sizes = [
            replace(
                run, output=str(tmp_path / f"{name}{side}"), model=replace(STUDENT, input_size=(side, side))
            )
            for side in (32, 64)
        ]
        for together, own in zip(distill_students(sizes), sizes, strict=True):
            alone = distill(replace(own, output=f"{own.output}_alone"))
            assert alone["cca"] == pytest.approx(together["cca"], rel=1e-4) and alone["cca"] > 0
    assert len(list((tmp_path / "cache").glob("keypoints-*.npz"))) == 1
    assert not list((tmp_path / "cache").glob("teacher-*"))


def test_what_is_drawn_for_one_student_is_not_taken_for_another_s(config, tmp_path):
    drawn = replace(config, teacher_options=replace(config.teacher_options, targets="keypoints"))
    sizes = [
        replace(drawn, output=str(tmp_path / str(side)), model=replace(STUDENT, input_size=(side, side)))
        for side in (32, 64)
    ]
    got = r"Gaussians over \(64, 64\) classes beside a student of \(128, 128\)"
    with pytest.raises(InputError, match=f"teacher_options: expected `ask: people`, .*, got {got}"):
        distill_students(sizes)
    same = replace(sizes[1], model=replace(STUDENT, input_size=(64, 64), split_ratio=1.0))
    assert len(distill_students([sizes[0], same])) == 2


HEATMAPS = replace(STUDENT, name="lowres_small", head="heatmap", decoding="dark")


@pytest.mark.parametrize("ask", ["views", "people"])
def test_a_student_with_heatmaps_learns_without_a_label(config, tmp_path, ask):
    options = replace(config.teacher_options, ask=ask)
    run = replace(config, model=HEATMAPS, teacher_options=options, epochs=12, batch_size=16)
    distill(run)
    history = json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"]
    assert all(record["heatmap"] == 0 and record["beta"] == 1 for record in history)
    assert history[-1]["cca"] < 0.8 * history[0]["cca"]


def test_keypoints_teach_heatmaps_what_labels_at_their_places_teach(config, tmp_path):
    # sure of all: Gaussians as wide as those around labels
    options = replace(
        config.teacher_options, ask="people", targets="keypoints", confidence=False, min_confidence=0.0
    )
    teacher = TeacherFile(config.teacher, options=options).load("cpu", MPII_JOINTS)
    assert isinstance(teacher, ForeignTeacher)
    student = create_model(HEATMAPS.spec(MPII_JOINTS))
    asked = AskedOnce(teacher, (32, 32), student.spec.method.places(student.spec))
    persons = load_people(config.data, tmp_path).train
    asked.ask("teacher", persons, tmp_path)
    to_image = torch.tensor([[[4.0, 0.0, 10.0], [0.0, 4.0, 5.0]]])
    # on cells, of two pixels, where a Gaussian is 1 high
    keypoints = 2 * ((asked._labels.keypoints - to_image[:, None, :, 2]) / 8).round()
    asked._labels.keypoints = 4 * keypoints + to_image[:, None, :, 2]
    index = torch.tensor([0])
    keypoints, said = keypoints[index], asked.output(index, to_image)
    task = DistillationTask(
        student, label_loss=HeatmapLoss((32, 32), quantized=False), cca=cca_between(student, asked)
    )
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    known = said.confidence
    terms = task(images, None, keypoints, known, teacher_output=said)
    assert known.sum() > 4
    torch.testing.assert_close(terms["cca"], terms["heatmap"])


def test_heatmaps_from_a_network_of_this_package(config, tmp_path):
    teacher = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=16, split_ratio=2.0)
    task = DistillationTask(create_model(HEATMAPS.spec(MPII_JOINTS)), teacher)
    assert isinstance(task.loss.cca, HeatmapCCA) and task.loss.beta == 1
    # 128 bins of half a pixel to 16 cells of two of half as many
    assert task.loss.cca.offset == (3.5, 3.5)


def test_the_command(config, write_teacher, tmp_path, capsys):
    arguments = ["distill", "--teacher", config.teacher, "--teacher_options.preset", "hrnet", "--cpu", "true"]
    arguments += ["--data.root", config.data.root, "--data.labelled_fraction", "0", "--data.workers", "0"]
    arguments += ["--output", config.output, "--epochs", "1", "--teacher_options.targets", "keypoints"]
    assert main([*arguments, "--model.name", "hrnet_w8_small"]) == 0
    capsys.readouterr()
    # three hands are nobody's
    write_teacher(tmp_path / "teacher.onnx", joints=3)
    assert main([*arguments, "--output", str(tmp_path / "other")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == "cdkd: joints: expected the names of the joints, in its order, got nothing for a network of 3"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": ModelConfig(name="hrnet_w8_small", input_size=(64, 32))},
            "teacher: expected the aspect ratio of",
        ),
        (
            {"model": replace(STUDENT, head="rle")},
            r"cca\.enabled: expected false: .* for a student of the method rle",
        ),
        ({"cca": CCAConfig(enabled=False)}, "teacher: expected a term that the student learns by"),
        (
            {"teacher_options": TeacherOptions(cut=-2)},
            r"teacher_options\.cut: expected a number of cells, or -1",
        ),
        (
            {
                "teacher_options": TeacherOptions(preset="hrnet", ask="people"),
                "cca": CCAConfig(enabled=False),
            },
            r"cca\.enabled: expected true, got false, for a teacher that is asked about people",
        ),
        ({"teacher_options": TeacherOptions(preset="nobody")}, r"teacher_options\.preset: expected one of"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(config, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        distill(replace(config, **changes))
    assert not (tmp_path / "run").exists()


def network(**options):
    description = TeacherDescription(kind="heatmap", values="logits", input_size=(64, 64), **options)
    return torch.nn.Conv2d(3, 17, 4, 4), description


def crops(side):
    return torch.randint(
        0, 256, (4, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(side)
    )


def test_a_task_of_ones_own_takes_it_as_it_is():
    torch.manual_seed(0)
    student = create_model(
        "hrnet_w8_small", input_size=(32, 32), num_joints=16, split_ratio=2.0, joints=MPII_JOINTS
    )
    teacher = ForeignTeacher.of(*network(), joints=MPII_JOINTS)
    task = DistillationTask(student, teacher)
    # four pixels a cell, four bins a cell: the middle of cell 0 is at bin 1.5
    assert task.loss.cca.offset == pytest.approx(((16 / 64 - 1) / 2 + 1.5 * 64 / 64 * 16 / 64,) * 2)
    labels = torch.rand(4, 16, 2) * 31, torch.ones(4, 16)
    losses = task(crops(32), crops(64), *labels, labelled=torch.zeros(4))
    assert losses["simcc"] == 0 and "sape" not in losses
    losses["total"].backward()
    output = teacher(crops(64))
    by_hand = CCA(offset=task.loss.cca.offset)(student(crops(32)), output, 1.0, output.confidence)
    torch.testing.assert_close(losses["cca"], by_hand)
    # nothing is learnt of a joint that the teacher does not have
    head_top = MPII_JOINTS.names.index("head_top")
    assert output.confidence[:, head_top].eq(0).all() and output.confidence[:, 0].gt(0).all()


def test_features_that_there_are_not_are_not_asked_for_in_silence():
    student = create_model(
        "hrnet_w8_small", input_size=(32, 32), num_joints=16, split_ratio=2.0, joints=MPII_JOINTS
    )
    teacher = ForeignTeacher.of(*network(), joints=MPII_JOINTS)
    with pytest.raises(
        InputError, match=r"sape.enabled: expected false for a teacher that shows no feature maps"
    ):
        DistillationConfig(sape=SAPEConfig(enabled=True)).terms(student, teacher)
    assert DistillationConfig().terms(student, teacher)["sape"] is None


def test_features_are_compared_where_they_are_described_and_agree():
    student = create_model(
        "hrnet_w8_small", input_size=(32, 32), num_joints=17, split_ratio=2.0, joints=COCO_JOINTS
    )
    module, description = network(outputs={"heatmap": "maps", "feature": "maps"})
    teacher = ForeignTeacher.of(module, description, joints=COCO_JOINTS)
    assert teacher.teacher_spec.feature_size == (16, 16)
    sape = DistillationConfig(sape=SAPEConfig(enabled=True)).terms(student, teacher)["sape"]
    task = DistillationTask(student, teacher, sape=sape)
    assert isinstance(task.loss.sape, SAPE)
    losses = task(crops(32), crops(64), torch.zeros(4, 17, 2), torch.zeros(4, 17))
    assert {"sape", "cca"} <= losses.keys()
