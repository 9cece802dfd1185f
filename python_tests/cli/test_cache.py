"""`cdkd cache`: what a store will take, and filling it before students learn from it."""

from __future__ import annotations

import os
import re

import pytest
import torch

from cdkd_ext.checkpoints import save_model
from cdkd_ext.cli import main
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.teachers import FrozenTeacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    torch.manual_seed(0)
    network = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=16, joints=MPII_JOINTS)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_model(network, path)
    return path


@pytest.fixture
def options(drawn_people, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [
        "--data.root", str(drawn_people), "--teacher", str(teacher), "--data.workers=0", "--data.cache=cache",
        "--model.name=hrnet_w8_small", "--cpu=true",
    ]  # fmt: skip


def test_a_plan_says_what_everything_takes_and_writes_nothing(options, capsys):
    assert main(["cache", "plan", *options, "--data.views=2", "--rates.load=100", "--rates.teacher=50"]) == 0
    head, *lines, note, measured = capsys.readouterr().out.splitlines()
    assert "".join(head.split()) == "bytes/viewthisdatasetCOCO:150,000peopletenmillioncrops"
    rows = {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in lines)}
    crops, dense, compact, features, hours = (
        rows[name]
        for name in (
            "student's crops and labels, raw",
            "teacher, dense",
            "teacher, compact",
            "teacher, compact, and features",
            "time of one process",
        )
    )
    bins = 64 * 3
    # two axes of 16 joints, and 16 maps of 16 x 16 cells
    assert dense[0] == f"{2 * (2 * 16 * bins + 16 * 16 * 16):,}"
    assert compact[0] == f"{16 * 2 * 89 + 2 * 2 + 4:,}"
    assert features[0] == f"{16 * 2 * 89 + 2 * 2 + 4 + 2 * 16 * 16 * 16:,}"
    assert crops[0] == f"{3 * 32 * 32 + 16 * 4 * 3 + 4 + 24 + 4:,}"
    assert compact[2] == f"{2856 * 2 * 150_000 / 1e9:.2f} GB"
    assert hours == ["0.00 h", "2.50 h", "166.67 h"]
    assert "not compact" in note and "2 views per person; 100 views/s" in measured
    assert os.listdir() == []


def test_a_cache_that_was_built_saves_the_teacher(options, capsys, monkeypatch):
    shared = [*options, "--data.views=2", "--data.teacher_cache=compact", "--sape.enabled=false"]
    assert main(["cache", "build", *shared]) == 0
    done = capsys.readouterr()
    assert "2 views of each of 48 people are stored in cache" in done.out
    assert "shard 1 of 1 is written" in done.err
    monkeypatch.setattr(FrozenTeacher, "__call__", lambda self, images: pytest.fail("asked again"))
    assert main(["cache", "build", *shared]) == 0
    assert main(["distill", *shared, "--epochs=1", "--model.input_size=[64,64]", "--output=run"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cache", "fill"], "invalid choice: 'fill'"),
        (["cache"], "action"),
        (["cache", "build", "OPTIONS"], "data.views: expected a positive number of views to store, got 0"),
        (
            ["cache", "plan", "OPTIONS", "--rates.load=0"],
            "rates.load: expected a positive number of views per",
        ),
        (["cache", "plan", "OPTIONS", "--teacher=none"], "teacher: expected an existing checkpoint"),
        (["cache", "plan", "--nonsense=1"], "nonsense"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, options, capsys):
    given = [part for argument in arguments for part in (options if argument == "OPTIONS" else [argument])]
    assert main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cdkd: ") and message in line


@pytest.mark.parametrize("action", [[], ["plan"], ["build"]])
def test_help_shows_an_example(action, capsys):
    with pytest.raises(SystemExit):
        main(["cache", *action, "--help"])
    assert f"cdkd cache {(action or ['plan'])[0]} --data.root coco" in " ".join(
        capsys.readouterr().out.split()
    )
