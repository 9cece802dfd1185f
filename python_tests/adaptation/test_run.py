"""Whole adaptations, of a network that these tests train on drawn people."""

from __future__ import annotations

import copy
import json
import shutil
import signal
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import torch

from cdkd_ext.adaptation import AdaptableModule, TrainableGraph, adapt
from cdkd_ext.adaptation.run import _counted
from cdkd_ext.adaptation.trainer import AdaptationTrainer
from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig, Photometric, PoseDataset, load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.teachers import TeacherOptions
from cdkd_ext.teachers.pseudo_labels import PseudoLabels
from cdkd_ext.training import InterruptedRun, NonFiniteLossError
from python_tests.adaptation.conftest import DESCRIPTION, SIZE


def _files(folder):
    return {path.name for path in folder.iterdir()}


def _of_everybody(config):
    """The same, with a report on the people that the network has learnt from, whom it knows best."""
    data = replace(config.data, val="train/annotations.json", val_images="train/images")
    return replace(config, data=data, report_people=48)


def test_a_network_learns_to_see_from_afar(config, tmp_path, capsys):
    optimizer = replace(config.optimizer, schedule="cosine")
    report = adapt(_of_everybody(replace(config, steps=120, check_every=60, optimizer=optimizer)))
    assert report.metric == "PCKh@0.5" and report.people == 48
    assert [one.height for one in report.after] == [16, 24, 32, 48, None]
    first = report.before[0], report.after[0]
    assert first[1].agreement > first[0].agreement + 3
    assert first[1].accuracy > first[0].accuracy - 1
    assert report.before[-1].agreement == 100
    history = json.loads((tmp_path / "run/metrics.json").read_text())["epochs"]
    assert history[-1]["total"] < history[1]["total"]
    assert _files(tmp_path / "run") == {
        "adapted.onnx", "config.yaml", "metrics.json", "report.html", "report.json", "state.pt", "teacher",
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "stays under the licence" in shown and str(report) in shown
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "http" not in page
    assert json.loads((tmp_path / "run/report.json").read_text())["after"][0]["height"] == 16


@pytest.mark.parametrize(("rate", "shaken"), [(1.0, True), (1e-6, False)])
def test_a_rate_that_is_far_too_high_is_told(config, rate, shaken, capsys):
    adapt(replace(config, optimizer=replace(config.optimizer, learning_rate=rate)))
    shown = capsys.readouterr().out
    assert shown.count("a tenth of the learning rate (--optimizer.learning_rate 0.1)") == int(shaken)
    assert ("keeps more of what the network knows" in shown) == shaken


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_it_learns_as_well(config):
    optimizer = replace(config.optimizer, schedule="cosine")
    config = replace(config, cpu=False, steps=120, check_every=60, optimizer=optimizer)
    report = adapt(_of_everybody(config))
    assert report.before[-1].agreement == 100
    assert report.after[0].agreement > report.before[0].agreement + 3


def test_the_file_is_the_same_but_for_its_weights(config, tmp_path):
    adapt(config)
    before, after = (
        OnnxFile(path, cpu=True) for path in (tmp_path / "network.onnx", tmp_path / "run/adapted.onnx")
    )
    assert before.inputs == after.inputs and before.outputs == after.outputs
    assert json.loads(after.metadata["cdkd_ext.adapted"]) == {
        "model": "network.yaml",
        "size": "16",
        "steps": 8,
    }
    # and can be adapted again, or teach
    assert (
        TrainableGraph(tmp_path / "run/adapted.onnx").weights.keys()
        == TrainableGraph(tmp_path / "network.onnx").weights.keys()
    )


def test_other_outputs_stay_what_they_were(config, tmp_path, drawn_people):
    persons, joints = load_coco_persons(
        drawn_people / "train/annotations.json", drawn_people / "train/images"
    )
    crops = PoseDataset(persons, joints, size=(SIZE, SIZE))
    images = torch.stack([crops[index]["image"] for index in range(16)]).numpy().astype(np.float32) / 255
    wanted = OnnxFile(tmp_path / "network.onnx", cpu=True)({"image": images})["center"]
    errors = []
    for weight in (0.0, 8.0):
        output = str(tmp_path / f"run{weight}")
        adapt(replace(config, output=output, keep_outputs=weight, steps=60, check_every=60))
        given = OnnxFile(f"{output}/adapted.onnx", cpu=True)({"image": images})["center"]
        errors.append(float(np.abs(given - wanted).mean()))
    assert errors[1] < 0.7 * errors[0], errors


def _run_to_the_end(config, folder):
    adapt(replace(config, output=str(folder)))
    return (folder / "adapted.onnx").read_bytes(), (folder / "metrics.json").read_text()


def test_a_run_that_was_stopped_ends_at_the_same_bits(config, tmp_path, monkeypatch):
    config = replace(config, checkpoint_every=2)
    whole = _run_to_the_end(config, tmp_path / "whole")
    kept = AdaptationTrainer.keep

    def stop(trainer, epoch):
        kept(trainer, epoch)
        if trainer.step == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(AdaptationTrainer, "keep", stop)
    with pytest.raises(
        InterruptedRun, match=r"interrupted in step 6; the checkpoint of epoch 2, step 2, is kept; go on with"
    ):
        adapt(config)
    monkeypatch.undo()
    adapt(config, resume=True)
    adapted = (tmp_path / "run/adapted.onnx").read_bytes()
    assert adapted == whole[0]
    seconds = ("seconds", "samples_per_second")
    first, second = (
        [
            {name: value for name, value in record.items() if name not in seconds}
            for record in json.loads(text)["epochs"]
        ]
        for text in (whole[1], (tmp_path / "run/metrics.json").read_text())
    )
    assert first == second


def test_seeds_make_runs_differ_and_repeat(config, tmp_path):
    first, again = (_run_to_the_end(config, tmp_path / name)[0] for name in "ab")
    assert first == again
    assert first != _run_to_the_end(replace(config, seed=1), tmp_path / "c")[0]


def test_a_training_ends_early_where_the_agreement_stalls(config, tmp_path):
    # a rate of nothing changes nothing
    optimizer = replace(config.optimizer, learning_rate=1e-12)
    adapt(replace(config, optimizer=optimizer, steps=40, patience=2))
    history = json.loads((tmp_path / "run/metrics.json").read_text())["epochs"]
    assert [record["epoch"] for record in history] == [0, 1, 2, 3]
    report = (tmp_path / "run/report.html").read_text()
    assert "KEEP THE OLD FILE" in report
    # and is over
    adapt(replace(config, optimizer=optimizer, steps=40, patience=2), resume=True)
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["epochs"]) == 4
    # with more patience it goes on from there
    adapt(replace(config, optimizer=optimizer, steps=24, patience=0), resume=True)
    history = json.loads((tmp_path / "run/metrics.json").read_text())["epochs"]
    assert [record["step"] for record in history] == [0, 4, 8, 12, 16, 20, 24]


def test_the_best_weights_are_kept_or_the_last(config, tmp_path, monkeypatch):
    def kernels():
        graph = onnx.load(tmp_path / "run/adapted.onnx").graph
        held = {value.name: torch.tensor(onnx.numpy_helper.to_array(value)) for value in graph.initializer}
        return [value for name, value in sorted(held.items()) if name.endswith(".weight")]

    monkeypatch.setattr(AdaptationTrainer, "_measure", lambda trainer: {"agreement": -float(trainer.step)})
    adapt(config)
    best = kernels()
    adapt(replace(config, keep="last"), resume=True)
    state = torch.load(tmp_path / "run/state.pt", weights_only=False)
    trained = [value for value in state["task"].values() if value.ndim > 1]
    assert len(best) == len(kernels()) == 5
    assert all(any(torch.equal(kernel, value) for value in trained) for kernel in kernels())
    assert not any(any(torch.equal(kernel, value) for value in trained) for kernel in best)


def test_frozen_parts_keep_their_bits(config, tmp_path):
    adapt(replace(config, frozen=["first.*", "center.weight"]))
    before, after = (
        {name: weight.detach() for name, weight in TrainableGraph(path).weights.items()}
        for path in (tmp_path / "network.onnx", tmp_path / "run/adapted.onnx")
    )
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"first.weight", "first.bias", "center.weight"}


def test_footage_without_labels_is_enough(config, drawn_people, tmp_path):
    data = DataConfig(
        images=str(drawn_people / "train/images"), image_boxes="whole", near_duplicates=-1, workers=0
    )
    report = adapt(replace(config, data=data))
    assert report.metric is None and "there are no labels" in str(report)
    assert "PCKh" not in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_a_run_of_this_package_stays_one(config, tmp_path, head):
    torch.manual_seed(0)
    network = create_model(
        "hrnet_w8_small", input_size=(SIZE, SIZE), num_joints=16, joints=MPII_JOINTS, head=head
    )
    save_model(network, tmp_path / "ours.safetensors")
    report = adapt(replace(config, model=str(tmp_path / "ours.safetensors"), teacher=config.model, steps=4))
    again = load_model(tmp_path / "run/best.safetensors")
    assert again.spec == network.spec
    assert not torch.equal(again.final_layer.weight, network.final_layer.weight)
    assert report.teacher > 5
    # a file says how its crops are made
    for name, value in (("padding", 1.8), ("resample", "linear")):
        other = replace(config, model=str(tmp_path / "ours.safetensors"), output=str(tmp_path / "other"))
        with pytest.raises(
            InputError, match=rf"data\.{name}: expected nothing, or the network's own, .* got {value}"
        ):
            adapt(replace(other, data=replace(config.data, **{name: value})))


@pytest.mark.parametrize("head", ["rle", "cal"])
def test_a_checkpoint_of_another_head_is_refused(config, tmp_path, head):
    network = create_model(
        "hrnet_w8_small", input_size=(SIZE, SIZE), num_joints=16, joints=MPII_JOINTS, head=head
    )
    save_model(network, tmp_path / "ours.safetensors")
    with pytest.raises(
        InputError, match=f"model: expected one with simcc or heatmap, got .* the head {head}"
    ):
        adapt(replace(config, model=str(tmp_path / "ours.safetensors"), teacher=config.model, steps=4))


def test_what_the_teacher_says_is_weighted_as_told(config):
    said = PseudoLabels(np.zeros((1, 4, 2), np.float32), np.array([[0, 0.1, 0.5, 0.9]], np.float32))
    for options, expected in (
        (TeacherOptions(), [0, 0.1, 0.5, 0.9]),
        (TeacherOptions(min_confidence=0.5), [0, 0, 0.5, 0.9]),
        (TeacherOptions(min_confidence=0.5, confidence=False), [0, 0, 1, 1]),
        (TeacherOptions(confidence=False), [0, 1, 1, 1]),
    ):
        found = _counted(said, replace(config, teacher_options=options)).confidence
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[0], expected)


def test_a_module_is_adapted_in_place(config, trained_network, tmp_path):
    module = copy.deepcopy(trained_network)
    description = replace(DESCRIPTION, values="logits")
    adapt(replace(config, model="my network"), AdaptableModule(module, description))
    state = torch.load(tmp_path / "run/adapted.pth", weights_only=True)
    assert set(state) == set(module.state_dict())
    assert not torch.equal(module.maps.weight, trained_network.maps.weight)


def test_the_command_adapts_and_goes_on(config, pose_file, drawn_people, tmp_path, capsys):
    command = [
        "adapt",
        str(pose_file),
        "--size",
        "12-24",
        "--data.root",
        str(drawn_people),
        "--data.workers",
        "0",
    ]
    command += ["--steps", "4", "--check_every", "2", "--batch_size", "4", "--cpu", "true"]
    assert main([*command, "--output", str(tmp_path / "cli")]) == 0
    assert "agreement before" in capsys.readouterr().out
    assert main([*command, "--output", str(tmp_path / "cli")]) == 2
    assert "which holds a run" in capsys.readouterr().err
    shutil.copytree(tmp_path / "cli", tmp_path / "moved")
    assert main(["adapt", "--resume", str(tmp_path / "moved"), "--steps", "6"]) == 0
    assert json.loads((tmp_path / "moved/metrics.json").read_text())["epochs"][-1]["step"] == 6
    assert json.loads((tmp_path / "cli/metrics.json").read_text())["epochs"][-1]["step"] == 4
    words = ["adapt", "--resume", str(tmp_path / "cli"), "--output", str(tmp_path / "new"), "--steps", "6"]
    assert main(words) == 2
    assert "resume: expected" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert json.loads((tmp_path / "cli/metrics.json").read_text())["epochs"][-1]["step"] == 4


def test_a_loss_that_is_not_finite_ends_the_run(config):
    optimizer = replace(config.optimizer, learning_rate=1e30)
    with pytest.raises(NonFiniteLossError, match=r"became (nan|inf)"):
        adapt(replace(config, optimizer=optimizer))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": ""},
            "model: expected an ONNX file, a YAML file that describes one, or a run, got nothing",
        ),
        ({"model": "gone.onnx"}, "model: expected an existing file, got gone.onnx"),
        ({"size": "64"}, "size: expected less than the network's own 64 pixels, got 64"),
        ({"size": "tiny"}, "size: expected pixels"),
        ({"steps": 9}, "steps: expected a multiple of check_every, 4, got 9"),
        ({"steps": 50, "check_every": 100}, "steps: expected a multiple of check_every, 100, got 50"),
        ({"steps": 0}, "steps: expected a positive number"),
        ({"full_share": 1.0}, r"full_share: expected a number in \[0, 1\)"),
        ({"sigma": 0.0}, "sigma: expected"),
        ({"frozen": ["nothing.*"]}, r"frozen: expected the name of a weight, such as first\.weight"),
        ({"frozen": ["*"]}, "frozen: expected something left to learn"),
        ({"teacher": "gone.onnx"}, "teacher: expected an existing file, got gone.onnx"),
        ({"precision": "fp16"}, "precision: expected one of"),
        ({"keep": "first"}, "keep: expected one of"),
        ({"keep_outputs": -1.0}, "keep_outputs: expected zero or more"),
        ({"data": DataConfig(views=1)}, "data.views and data.stored_crops: expected neither"),
        (
            {"data": DataConfig(photometric=Photometric(hue=0.1))},
            r"data\.photometric: expected nothing.*hue=0\.1",
        ),
        ({"data": DataConfig(labelled_fraction=0.5)}, r"data\.labelled_fraction: expected nothing.*got 0\.5"),
        (
            {"teacher_options": TeacherOptions(height=32)},
            r"teacher_options\.height: expected nothing: an adaptation's teacher sees full resolution, got 32",
        ),
        ({"data": DataConfig(mirror_views=True)}, r"data\.mirror_views: expected nothing: an adaptation"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_no_folder(config, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        adapt(replace(config, **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_images_without_people_are_refused(config, tmp_path):
    (tmp_path / "empty").mkdir()
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"empty/{index}.png"), np.zeros((80, 80, 3), np.uint8))
    data = DataConfig(images=str(tmp_path / "empty"), image_boxes="whole", near_duplicates=-1, workers=0)
    sure = TeacherOptions(min_confidence=1.0)
    with pytest.raises(InputError, match="3 crops in which the teacher is sure of no joint"):
        adapt(replace(config, data=data, teacher_options=sure))


def test_joints_that_are_nobodys_are_refused(config, pose_file, tmp_path):
    names = ", ".join(f"left_tip{j}, right_tip{j}" for j in range(8))
    other = tmp_path / "other.yaml"
    other.write_text(pose_file.read_text().replace("joints: mpii", f"joints: [{names}]"))
    with pytest.raises(InputError, match="expected joints of the data"):
        adapt(replace(config, teacher=str(other)))
    assert not (tmp_path / "run").exists()
