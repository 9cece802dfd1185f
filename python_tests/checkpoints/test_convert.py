"""Checkpoints brought from and to other code bases, as the command does it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from cdkd_ext.checkpoints import convert_checkpoint, load_model, save_model
from cdkd_ext.cli import main
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import ModelOptions, create_model

SMALL = ModelOptions(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model(
        "hrnet_w8_small", input_size=(32, 64), num_joints=17, head="heatmap", color_order="bgr"
    )


@pytest.fixture
def official(model, tmp_path):
    """A file as HRNet's release has it: tensors by name, and nothing about the network."""
    path = tmp_path / "official.pth"
    torch.save(model.state_dict(), path)
    return path


def test_there_and_back(model, official, tmp_path, capsys):
    ours, mmpose, back = tmp_path / "ours.safetensors", tmp_path / "mmpose.pth", tmp_path / "back.pth"
    told = ["--model.name=hrnet_w8_small", "--model.input_size=[32,64]", "--model.head=heatmap"]
    told += ["--model.color_order=bgr", "--joints=coco"]
    assert main(["convert", str(official), str(ours), *told]) == 0
    assert f"{len(model.state_dict())} tensors read (official names)" in capsys.readouterr().out
    loaded = load_model(ours)
    assert loaded.spec.joints == COCO_JOINTS
    assert (loaded.head, loaded.input_size, loaded.color_order) == ("heatmap", (32, 64), "bgr")
    assert main(["convert", str(ours), str(mmpose), "--layout=mmpose"]) == 0
    names = torch.load(mmpose, weights_only=True)["state_dict"].keys()
    assert {name.split(".")[0] for name in names} == {"backbone", "head"}
    assert main(["convert", str(mmpose), str(back), "--layout=official", *told]) == 0
    weights = torch.load(back, weights_only=True)
    expected = model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())


def test_a_run_s_folder_and_joints_from_a_file(tmp_path):
    small = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16, joints=MPII_JOINTS)
    save_model(small, tmp_path / "run/best.safetensors")
    report = convert_checkpoint(str(tmp_path / "run"), str(tmp_path / "a.pth"), layout="official")
    assert "hrnet_w8_small; written to" in report
    (tmp_path / "joints.yaml").write_text("keypoints: [nose, left_eye, right_eye]\n")
    torch.save(
        create_model("hrnet_w8_small", input_size=(32, 32), num_joints=3).state_dict(), tmp_path / "b.pth"
    )
    config = ModelOptions(name="hrnet_w8_small", input_size=(32, 32))
    output = tmp_path / "b.safetensors"
    convert_checkpoint(
        str(tmp_path / "b.pth"), str(output), model=config, joints=str(tmp_path / "joints.yaml")
    )
    assert load_model(output).spec.joints.names == ("nose", "left_eye", "right_eye")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "timm"}, "layout: expected one of 'cdkd', 'official', 'mmpose'"),
        ({"output": "a.pth"}, "output: expected a file ending in .safetensors, got a.pth"),
        ({"model": SMALL}, "joints: expected the joints of the weights"),
        (
            {"model": SMALL, "joints": "coco"},
            r"official\.pth: expected the .* tensors",
        ),
        ({}, r"model: expected the network of the weights, .*, got nothing for .*official\.pth"),
    ],
)
def test_refusals(official, tmp_path, changes, message):
    arguments = {"weights": str(official), "output": str(tmp_path / "new.safetensors")} | changes
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        convert_checkpoint(arguments.pop("weights"), arguments.pop("output"), **arguments)
    assert set(tmp_path.iterdir()) == before


def test_weights_that_know_their_joints_are_not_given_others(model, tmp_path):
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS)
    save_model(model, tmp_path / "ours.safetensors")
    with pytest.raises(InputError, match=r"joints: expected nothing: .*ours.safetensors says .*, got mpii"):
        convert_checkpoint(str(tmp_path / "ours.safetensors"), str(tmp_path / "x.safetensors"), joints="mpii")
    assert not (tmp_path / "x.safetensors").exists()


def test_another_network_is_named_before_its_options():
    one, other = (
        create_model(name, input_size=(32, 32), num_joints=17).spec
        for name in ("hrnet_w8_small", "lowres_small")
    )
    assert one.misfit(other) == "name" and one.misfit(one) is None


def test_a_checkpoint_that_describes_itself_keeps_all_that_it_says(tmp_path):
    spec = SMALL.spec(COCO_JOINTS, padding=1.5, resample="area")
    save_model(create_model(spec), tmp_path / "run/best.safetensors")
    for source in (tmp_path / "run", tmp_path / "run/best.safetensors"):
        convert_checkpoint(str(source), str(tmp_path / "same.safetensors"), model=SMALL, joints="coco")
        assert load_model(tmp_path / "same.safetensors").spec == spec
        with pytest.raises(InputError, match=r"model\.color_order: expected rgb as .* says, .* got bgr"):
            convert_checkpoint(
                str(source), str(tmp_path / "x.safetensors"), model=replace(SMALL, color_order="bgr")
            )
    with pytest.raises(InputError, match=r"none\.pth: expected a weights file, or .* got no such file"):
        convert_checkpoint(str(tmp_path / "none.pth"), str(tmp_path / "x.safetensors"), joints="coco")


def test_neither_a_runs_files_nor_the_weights_are_written_over(tmp_path):
    run = tmp_path / "run"
    save_model(create_model(SMALL.spec(COCO_JOINTS)), run / "best.safetensors")
    (run / "config.yaml").write_text("{}")
    shutil.copy(run / "best.safetensors", tmp_path / "own.safetensors")
    before = (run / "best.safetensors").read_bytes()
    for source, output, said in (
        (run, run / "best.safetensors", "a file of the run"),
        (run, run / "last.safetensors", "a file of the run"),
        (tmp_path / "own.safetensors", tmp_path / "run/../own.safetensors", "the weights themselves"),
    ):
        with pytest.raises(InputError, match=f"output: expected a file of its own, got .*, {said}"):
            convert_checkpoint(str(source), str(output), layout="official")
    assert (run / "best.safetensors").read_bytes() == before
    assert not (run / "last.safetensors").exists()
    assert (tmp_path / "own.safetensors").read_bytes() == before


@pytest.mark.parametrize("kept", [0, 100, -1000])
def test_a_damaged_checkpoint_is_called_damaged(tmp_path, kept):
    source = tmp_path / "whole.safetensors"
    save_model(create_model(SMALL.spec(COCO_JOINTS)), source)
    (tmp_path / "damaged.safetensors").write_bytes(source.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"weights: .*damaged\.safetensors is no complete safetensors file"):
        convert_checkpoint(str(tmp_path / "damaged.safetensors"), str(tmp_path / "x.safetensors"))
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("name", ["lowres_small", "hourglass_4_w32"])
def test_mmpose_has_hrnet_and_resnet_alone(name, tmp_path):
    network = create_model(name, input_size=(64, 64), num_joints=17, joints=COCO_JOINTS, head="heatmap")
    save_model(network, tmp_path / "ours.safetensors")
    with pytest.raises(
        InputError, match=f"layout: expected 'official' for {name}, which mmpose does not have"
    ):
        convert_checkpoint(str(tmp_path / "ours.safetensors"), str(tmp_path / "x.pth"), layout="mmpose")
    assert not (tmp_path / "x.pth").exists()
