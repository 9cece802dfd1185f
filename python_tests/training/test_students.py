"""Several students of one teacher: each ends as it would alone, images are read and the teacher asked once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cdkd_ext.checkpoints import save_model
from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import (
    DistillationConfig,
    InterruptedRun,
    ModelConfig,
    OptimizerConfig,
    TemperatureConfig,
    Trainer,
    TrainingConfig,
    distill,
    distill_students,
    train,
)
from cdkd_ext.training.shared import read_students, save_students

SMALL = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)
LARGE = ModelConfig(name="hrnet_w8_small", input_size=(64, 64), split_ratio=1.0)


@pytest.fixture(scope="module")
def teacher(drawn_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher")
    data = DataConfig(root=str(drawn_people), workers=0)
    model = replace(LARGE, split_ratio=2.0)
    train(TrainingConfig(output=str(output), model=model, data=data, epochs=1, batch_size=16))
    return output


def students(drawn_people: Path, output: Path, teacher: Path, **changes: Any) -> list[DistillationConfig]:
    data = DataConfig(root=str(drawn_people), workers=0, cache=str(output / "cache"))
    first = DistillationConfig(
        output=str(output / "a"),
        teacher=str(teacher),
        model=SMALL,
        data=data,
        epochs=2,
        batch_size=16,
        seed=5,
    )
    first = replace(first, **changes)
    adversarial = TemperatureConfig(adversarial=True)
    optimizer = OptimizerConfig(name="adam", learning_rate=1e-3)
    return [
        first,
        replace(first, output=str(output / "b"), model=LARGE, optimizer=optimizer, evaluate_every=2),
        replace(first, output=str(output / "c"), temperature=adversarial),
    ]


def same_weights(first: Path | str, second: Path | str) -> bool:
    a, b = load_file(Path(first) / "last.safetensors"), load_file(Path(second) / "last.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("changes", [{}, {"views": 2}, {"stored_crops": True}])
def test_each_ends_as_alone(
    drawn_people: Path,
    tmp_path: Path,
    teacher: Path,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = students(drawn_people, tmp_path / "together", teacher)
    alone = students(drawn_people, tmp_path / "alone", teacher)
    for config in [*together, *alone]:
        for name, value in changes.items():
            setattr(config.data, name, value)
    asked: list[int] = []
    ask = FrozenTeacher.__call__

    def counted(self: FrozenTeacher, images: torch.Tensor) -> Any:
        asked.append(len(images))
        return ask(self, images)

    monkeypatch.setattr(FrozenTeacher, "__call__", counted)
    records = distill_students(together, seed=5)
    # 48 people in two epochs, or each of their two views
    assert sum(asked) == 96
    for config, record in zip(alone, records, strict=True):
        own = distill(config)
        assert {name: record[name] for name in ("total", "pckh", "step")} == {
            name: own[name] for name in ("total", "pckh", "step")
        }
    for first, second in zip(together, alone, strict=True):
        assert same_weights(first.output, second.output)


def test_an_own_seed_changes_that_student_alone(drawn_people: Path, tmp_path: Path, teacher: Path) -> None:
    first = students(drawn_people, tmp_path / "first", teacher, epochs=1)
    second = students(drawn_people, tmp_path / "second", teacher, epochs=1)
    second[1] = replace(second[1], seed=6)
    distill_students(first, seed=5)
    distill_students(second, seed=5)
    same = [same_weights(a.output, b.output) for a, b in zip(first, second, strict=True)]
    assert same == [True, False, True]


@pytest.mark.parametrize(("every", "decay"), [(0, 0.0), (2, 0.9)])
def test_resumed_students_end_at_the_same_bits(
    drawn_people: Path,
    tmp_path: Path,
    teacher: Path,
    every: int,
    decay: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = students(drawn_people, tmp_path / "whole", teacher, checkpoint_every=every, ema_decay=decay)
    broken = students(drawn_people, tmp_path / "broken", teacher, checkpoint_every=every, ema_decay=decay)
    distill_students(whole, seed=5)
    original = Trainer._train_step

    def train_step(self: Trainer, batch: Any) -> Any:
        # the last student of the sixth step: the two others have taken it
        if self.step == 5 and self.output.name == "c":
            raise KeyboardInterrupt
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", train_step)
        with pytest.raises(InterruptedRun, match=r"/a: .*; .*/b: .*; .*/c: .*; resume them together"):
            distill_students(broken, seed=5)
    distill_students(broken, seed=5, resume=True)
    for first, second in zip(whole, broken, strict=True):
        assert same_weights(first.output, second.output)


def test_those_behind_catch_up(drawn_people: Path, tmp_path: Path, teacher: Path) -> None:
    """As after a kill between the files of two students."""
    whole = students(drawn_people, tmp_path / "whole", teacher)
    distill_students(whole, seed=5)
    ahead = students(drawn_people, tmp_path / "ahead", teacher)
    distill_students([replace(config, epochs=1) for config in ahead], seed=5)
    shutil.rmtree(ahead[1].output)
    shutil.copytree(whole[0].output, ahead[0].output, dirs_exist_ok=True)
    distill_students(ahead, seed=5, resume=True)
    # what a schedule over fewer epochs has trained ends elsewhere
    assert [same_weights(a.output, b.output) for a, b in zip(whole, ahead, strict=True)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, r"students\[1\]\.epochs: expected 2, as of the first one, got 3"),
        ({"batch_size": 8}, r"students\[1\]\.batch_size: expected 16"),
        ({"teacher": "other"}, r"students\[1\]\.teacher: expected "),
        ({"output": None}, r"students\[1\]\.output: expected another folder than that of students\[0\]"),
    ],
)
def test_what_they_share(
    drawn_people: Path, tmp_path: Path, teacher: Path, change: dict[str, Any], message: str
) -> None:
    configs = students(drawn_people, tmp_path / "runs", teacher)
    changed = {name: configs[0].output if value is None else value for name, value in change.items()}
    with pytest.raises(InputError, match=message):
        distill_students([configs[0], replace(configs[1], **changed)], seed=5)
    assert not (tmp_path / "runs").exists()


def test_fp16_has_one_loss_scale(drawn_people: Path, tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(InputError, match="precision: expected no or bf16, got fp16 for several students"):
        distill_students(students(drawn_people, tmp_path, teacher, precision="fp16"))


@pytest.mark.parametrize("changes", [{}, {"views": 1}, {"stored_crops": True}])
def test_they_share_a_padding(
    drawn_people: Path, tmp_path: Path, teacher: Path, changes: dict[str, Any]
) -> None:
    """What is stored for one of them would show the others' people at other places."""
    spec = replace(SMALL.spec(MPII_JOINTS), padding=1.6)
    save_model(create_model(spec), tmp_path / "start.safetensors")
    configs = students(drawn_people, tmp_path / "runs", teacher, epochs=1)[:2]
    for config in configs:
        for name, value in changes.items():
            setattr(config.data, name, value)
    started = replace(SMALL, weights=str(tmp_path / "start.safetensors"))
    with pytest.raises(InputError, match=r"datasets\[1\]\.padding: expected 1.25.*, got 1.6"):
        distill_students([configs[0], replace(configs[1], model=started)], seed=5)


def test_the_command(
    drawn_people: Path, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"model": {"name": "hrnet_w8_small", "input_size": [32, 32], "split_ratio": 2.0}}
    Path("small.yaml").write_text(yaml.safe_dump(small))
    Path("large.yaml").write_text(
        yaml.safe_dump({"model": {"name": "hrnet_w8_small", "input_size": [64, 64]}})
    )
    shared = [f"--teacher={teacher}", f"--data.root={drawn_people}", "--data.workers=0", "--batch_size=16"]
    command = ["distill", "--students", "small.yaml", "large.yaml", *shared]
    assert main([*command, "--epochs=1", "--seed=3", "--output=runs"]) == 0
    printed = capsys.readouterr().out
    assert "small  epoch 1/1" in printed and "checkpoints in runs/large" in printed
    assert read_students("runs") == (3, [Path("runs/small"), Path("runs/large")])
    Path("runs").rename("moved")
    assert main(["distill", "--resume", "moved", "--epochs=2"]) == 0
    assert yaml.safe_load(Path("moved/large/config.yaml").read_text())["epochs"] == 2
    assert not Path("runs").exists()
    capsys.readouterr()
    assert main(["distill", "--students", *shared]) == 2
    assert capsys.readouterr().err == "cdkd: students: expected a YAML file for each student, got none\n"
    assert main([*command, "--resume", "moved"]) == 2
    assert "students: expected one of the two" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.yaml", "moved", "small.yaml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", r"students\.yaml: expected the fields seed and students"),
        ("{seed: x, students: [a]}", r"students\.yaml: seed: expected a non-negative integer, got x"),
        ("{seed: 1, students: []}", r"students\.yaml: students: expected a list of folders"),
        ("{seed: 1, students: [1]}", r"students\.yaml: students: expected a list of folders"),
    ],
)
def test_a_damaged_list_of_students(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "students.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        read_students(tmp_path)


def test_runs_elsewhere_keep_their_place(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    save_students(tmp_path / "runs", 1, [str(tmp_path / "runs/a"), str(tmp_path / "b")])
    assert read_students(tmp_path / "runs") == (1, [tmp_path / "runs/a", tmp_path / "b"])


def test_what_ends_a_validation_leaves_the_epoch_of_every_student(
    drawn_people: Path, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = students(drawn_people, tmp_path / "whole", teacher)
    broken = students(drawn_people, tmp_path / "broken", teacher)
    distill_students(whole, seed=5)
    original = Trainer._validate

    def validate(self: Trainer, epoch: int) -> Any:
        if epoch == 1 and self.output.name == "b":
            raise InputError("a.jpg: expected a whole image")
        return original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_validate", validate)
        with pytest.raises(
            InputError,
            match=r"a\.jpg: .*/a: the checkpoint of epoch 2 .*/c: the checkpoint of epoch 2, step 3",
        ):
            distill_students(broken, seed=5)
    distill_students(broken, seed=5, resume=True)
    for first, second in zip(whole, broken, strict=True):
        assert same_weights(first.output, second.output)
