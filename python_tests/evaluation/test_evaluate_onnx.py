"""ONNX files are evaluated as the checkpoints that they come from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cdkd_ext.checkpoints import save_model
from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig, load_coco_persons
from cdkd_ext.data.loading import load_validation
from cdkd_ext.deployment import export_network
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import evaluate_checkpoint, table
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import ModelOptions, create_model

pytestmark = pytest.mark.usefixtures("few_layers")

COMPARED = {"people", "boxes", "padding", "resample", "input_size", "camera_faults", "model", "simcc_score"}


@pytest.fixture(scope="module")
def data(drawn_people):
    return DataConfig(root=str(drawn_people))


@pytest.fixture(scope="module")
def files(drawn_people, tmp_path_factory):
    """A checkpoint whose maxima are no ties, and its export, with the flip test inside."""
    joints = load_coco_persons(drawn_people / "val/annotations.json", drawn_people / "val/images")[1]
    torch.manual_seed(2)
    network = create_model(
        "lowres_small", input_size=(32, 32), num_joints=len(joints), joints=joints, padding=1.5
    )
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    checkpoint = tmp_path_factory.mktemp("files") / "own.safetensors"
    save_model(network, checkpoint)
    export_network(str(checkpoint), str(checkpoint.with_suffix(".onnx")), flip_test=True)
    return str(checkpoint), str(checkpoint.with_suffix(".onnx"))


@pytest.fixture
def coco(official_data):
    return DataConfig(
        root=str(official_data / "coco"),
        val="annotations/person_keypoints_val2017.json",
        val_images="val2017",
        boxes="boxes.json",
    )


@pytest.mark.parametrize("changes", [{}, {"padding": 2.5, "resample": "linear", "camera_faults": 0.5}])
def test_an_export_has_the_metrics_of_its_checkpoint(data, files, tmp_path, changes):
    reports, results = [], []
    for weights in files:
        found = tmp_path / "results.json"
        reports.append(
            evaluate_checkpoint(weights, replace(data, **changes), cpu=True, results=str(found), batch_size=5)
        )
        results.append(json.loads(found.read_text()))
    own, theirs = reports
    assert theirs["weights"] == files[1] and theirs["flip_test"] is own["flip_test"] is True
    assert {name: own[name] for name in COMPARED} == {name: theirs[name] for name in COMPARED}
    assert {name: theirs[name] for name in changes} == changes
    assert (theirs["pckh"], theirs["pckh_0.1"]) == (own["pckh"], own["pckh_0.1"])
    assert theirs["pckh_per_joint"] == own["pckh_per_joint"] and (own["pckh"] > 0 or changes)
    for one, other in zip(*results, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=2e-3)


def test_the_command_takes_an_export(data, files, capsys, tmp_path):
    options = [f"--data.root={data.root}", "--cpu=true", "--data.workers=2"]
    assert main(["eval", files[1], *options, f"--output={tmp_path / 'onnx.json'}"]) == 0
    theirs = capsys.readouterr().out
    assert main(["eval", files[0], *options]) == 0
    assert theirs == capsys.readouterr().out and "PCKh@0.5" in theirs
    assert json.loads((tmp_path / "onnx.json").read_text())["flip_test"] is True


def test_anybodys_network_is_matched_by_names(data, write_teacher, tmp_path):
    """Eight joints, of which the data have six: what it says nothing of is left out."""
    known = ("left_ankle", "left_elbow", "left_knee", "right_ankle", "right_elbow", "right_knee")
    write_teacher(tmp_path / "colors.onnx", joints=8)
    described = tmp_path / "colors.yaml"
    names = ", ".join([*known, "left_ear", "right_ear"])
    described.write_text(f"file: colors.onnx\nkind: heatmap\ncells: center\njoints: [{names}]\n")
    report = evaluate_checkpoint(str(described), data, flip_test=False, cpu=True)
    truth = load_validation(data)
    per_joint = report["pckh_per_joint"]
    assert report["people"] == len(truth.persons) and report["flip_test"] is False
    assert {name for name, value in per_joint.items() if value == value} == {"elbow", "knee", "ankle"}
    counts = np.stack([person.annotated for person in truth.persons]).sum(0) > 0
    assert counts.all() and np.isfinite(report["pckh"])
    lines = table(report).splitlines()
    assert lines[-1].startswith("joints: ") and "nothing for" in lines[-1] and "wrist" in lines[-1]


def test_joints_that_nothing_is_said_of_are_missed_in_ap(coco, write_teacher, tmp_path):
    write_teacher(tmp_path / "colors.onnx", joints=4)
    described = tmp_path / "colors.yaml"
    names = "left_wrist, right_wrist, left_ankle, right_ankle"
    described.write_text(f"file: colors.onnx\nkind: heatmap\ncells: center\njoints: [{names}]\n")
    report = evaluate_checkpoint(str(described), coco, results=str(tmp_path / "found.json"), cpu=True)
    found = json.loads((tmp_path / "found.json").read_text())
    said = [COCO_JOINTS.names.index(name) for name in names.split(", ")]
    for person in found:
        rows = np.reshape(person["keypoints"], (17, 3))
        unsaid = np.delete(rows, said, axis=0)
        assert not unsaid.any() and rows[said].any()
    assert report["boxes"].startswith("detector's") and report["flip_test"] is True and report["AP"] < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip_test": False}, r"flip_test: expected True, as .*onnx was exported"),
        ({"simcc_score": "max"}, "simcc_score: expected min: an ONNX file decodes by itself, got max"),
        (
            {"model": ModelOptions(name="hrnet_w32", input_size=(32, 32))},
            r"model\.\w+: expected .* says, or no model options",
        ),
    ],
)
def test_what_an_export_cannot_do_is_named(data, files, options, message):
    with pytest.raises(InputError, match=message):
        evaluate_checkpoint(files[1], data, cpu=True, **options)


def test_files_that_do_not_fit_are_named(data, files, coco, make_graph, tmp_path):
    with pytest.raises(InputError, match=r"weights: expected an existing checkpoint or ONNX file, got none"):
        evaluate_checkpoint("none.onnx", data, cpu=True)
    # joints of its own, which are matched by name
    assert "joints" in evaluate_checkpoint(files[1], coco, cpu=True)
    described = tmp_path / "dots.yaml"
    described.write_text("file: dots.onnx\nkind: heatmap\njoints: [left_wrist, right_wrist, head]\n")
    make_graph()
    given = ModelOptions(name="hrnet_w32", input_size=(32, 32))
    with pytest.raises(InputError, match=r"model: expected nothing beside .*dots.yaml"):
        evaluate_checkpoint(str(described), data, model=given, cpu=True)
