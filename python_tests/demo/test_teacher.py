"""The teacher that comes with the package: it loads, it knows drawn people, and its recipe makes such a file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import DataConfig
from cdkd_ext.data.loading import load_validation, prepare_synthetic
from cdkd_ext.demo import TEACHER, train_teacher
from cdkd_ext.demo.teacher import SEED
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import evaluate_people
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.recipes import load_recipe
from cdkd_ext.synthetic import draw_people

MEASURED = 68.2  # PCKh@0.5 of 1,500 people


def test_it_is_small_and_in_half_precision():
    assert TEACHER.parent.name == "demo" and TEACHER.stat().st_size <= 3_000_000
    floats = {value.dtype for value in load_file(TEACHER).values() if value.is_floating_point()}
    assert floats == {torch.float16}


def test_it_is_the_network_of_its_recipe():
    spec, recipe = load_model(TEACHER).spec, load_recipe("demo_teacher")
    assert (spec.name, list(spec.input_size)) == (recipe["model"]["name"], recipe["model"]["input_size"])
    assert spec.joints == MPII_JOINTS


def test_it_was_trained_on_other_people_than_the_demonstration_s(tmp_path):
    folders = [prepare_synthetic(tmp_path / str(seed), 2, seed=seed) for seed in (SEED, 0)]
    people = [
        (folder / split / "images/000000.jpg").read_bytes()
        for folder in folders
        for split in ("train", "val")
    ]
    assert len(set(people)) == 4


def test_it_finds_the_joints_of_drawn_people(tmp_path):
    draw_people(tmp_path / "val", 80, seed=1234)
    truth = load_validation(DataConfig(root=str(tmp_path)))
    network = load_model(TEACHER).eval()
    found = evaluate_people(network, truth, flip_test=True)["pckh"]
    assert found > MEASURED - 8
    # and not by luck: a network with fresh weights finds nothing
    torch.manual_seed(0)
    torch.nn.init.normal_(network.stem[0].weight)
    assert evaluate_people(network, truth, flip_test=True)["pckh"] < found / 2


def test_one_command_makes_such_a_file(tmp_path):
    options = ("--epochs=1", "--batch_size=4", "--model.name=hrnet_w8_small", "--precision=no")
    path = train_teacher(tmp_path, people=8, options=options)
    assert path == tmp_path / "teacher.safetensors"
    run = load_model(tmp_path / "run/last.safetensors").state_dict()
    for name, value in load_model(path).state_dict().items():
        expected = run[name].half().float() if value.is_floating_point() else run[name]
        assert torch.equal(value, expected), name
    assert load_model(path).spec.input_size == (64, 64)
    # finished: a second call trains no more
    before = (tmp_path / "run/state.pt").stat().st_mtime_ns
    train_teacher(tmp_path, people=8, options=options)
    assert (tmp_path / "run/state.pt").stat().st_mtime_ns == before


def test_a_failed_training_is_told(tmp_path):
    with pytest.raises(InputError, match=r"run: expected a finished training"):
        train_teacher(tmp_path, people=8, options=("--epochs=0",))
