"""Runs that go on: from the folder that is named, with nothing written before everything is checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig
from cdkd_ext.errors import InputError, Terminated
from cdkd_ext.training import (
    DistillationConfig,
    InterruptedRun,
    ModelConfig,
    OptimizerConfig,
    SAPEConfig,
    Trainer,
    TrainingConfig,
    train,
)
from cdkd_ext.training.schedule import learning_rate

MODEL = ModelConfig(name="hrnet_w8_small", input_size=(32, 32))


def plain(drawn_people, output, **changes) -> TrainingConfig:
    data = DataConfig(root=str(drawn_people), workers=0)
    config = TrainingConfig(output=str(output), model=MODEL, data=data, epochs=1, batch_size=16)
    return replace(config, **changes)


@pytest.fixture(scope="module")
def finished(drawn_people, tmp_path_factory):
    """A run of one epoch."""
    output = tmp_path_factory.mktemp("finished") / "run"
    train(plain(drawn_people, output))
    return output


@pytest.fixture(scope="module")
def unbroken(drawn_people, tmp_path_factory):
    """What two epochs give."""
    output = tmp_path_factory.mktemp("unbroken") / "run"
    train(plain(drawn_people, output, epochs=2))
    return content(output)["last.safetensors"]


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, whose config.yaml names the original."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def epochs_of(folder) -> list[int]:
    return [record["epoch"] for record in json.loads((folder / "metrics.json").read_text())["epochs"]]


def test_a_copied_run_goes_on_where_it_lies(finished, run, monkeypatch):
    original = content(finished)
    monkeypatch.chdir(run.parent)
    assert main(["train", "--resume", "run", "--epochs", "2"]) == 0
    assert epochs_of(run) == [1, 2]
    assert content(finished) == original


def test_a_moved_run_goes_on_where_it_lies(run, tmp_path, monkeypatch):
    moved = run.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--epochs=2", "--resume=moved"]) == 0
    assert epochs_of(moved) == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved"]


@pytest.mark.parametrize("order", ["output first", "resume first"])
def test_a_given_output_receives_the_rest_of_the_run(run, tmp_path, order):
    before = content(run)
    options = [["--output", str(tmp_path / "other")], ["--resume", str(run)]]
    first, second = options if order == "output first" else options[::-1]
    assert main(["train", *first, *second, "--epochs=2"]) == 0
    assert content(run) == before
    assert epochs_of(tmp_path / "other") == [1, 2]
    assert {"best.safetensors", "last.safetensors", "state.pt", "config.yaml"} <= content(
        tmp_path / "other"
    ).keys()


def test_a_resumed_run_has_the_bits_of_the_unbroken_one(drawn_people, run, unbroken):
    # the learning rate falls to zero at the end of the training, so its first epoch must know of the second
    shutil.rmtree(run)
    interrupted = plain(drawn_people, run, epochs=2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr("cdkd_ext.training.loop.Trainer._save", stopping_after_the_first(run))
        train(interrupted)
    train(replace(interrupted, output=str(run)), resume=run)
    assert content(run)["last.safetensors"] == unbroken


def stopping_after_the_first(folder):
    save = Trainer._save

    def stop(self, epoch, record):
        save(self, epoch, record)
        assert (folder / "state.pt").is_file()
        raise RuntimeError("stopped")

    return stop


def test_a_run_without_a_state_is_refused_and_stays(run, capsys):
    (run / "state.pt").unlink()
    before = content(run)
    assert main(["train", "--resume", str(run), "--epochs=2"]) == 2
    assert "without state.pt" in capsys.readouterr().err
    assert content(run) == before


def test_another_run_is_not_written_over(run, tmp_path, capsys):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert main(["train", "--resume", str(run), "--output", str(other), "--epochs=2"]) == 2
    assert "output: expected a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs=0"], "epochs: expected a positive number"),
        (["--model.name=hrnet_w9"], "model.name: expected one of"),
        (["--epochs=2", "--model.name=hrnet_w16_small"], "model.name: expected hrnet_w8_small as in"),
        (["--epochs=2", "--model.input_size=[64,64]"], "model.input_size: expected (32, 32) as in"),
        (["--epochs=2", "--model.input_size=[30,32]"], "input_size: expected"),
        (["--epochs=2", "--model.head=heatmap"], "model.head: expected simcc as in"),
        (["--epochs=2", "--data.root=nowhere"], "data.root: expected an existing folder"),
        (["--epochs=2", "--batch_size=1"], "batch_size: expected at least 2, or a larger model.input_size"),
        (["--epochs=2", "--data.labelled_fraction=0"], "data.labelled_fraction: expected labels"),
    ],
)
def test_a_refused_resume_changes_nothing(run, capsys, options, message):
    before = content(run)
    capsys.readouterr()
    assert main(["train", "--resume", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert content(run) == before


def test_fewer_epochs_than_done_change_nothing(drawn_people, run):
    assert main(["train", "--resume", str(run), "--epochs=2"]) == 0
    before = content(run)
    with pytest.raises(InputError, match="epochs: expected at least the 2 that"):
        train(plain(drawn_people, run), resume=run)
    assert content(run) == before
    assert main(["train", "--resume", str(run)]) == 0


def test_what_a_run_began_with_need_not_stay(drawn_people, finished, tmp_path):
    start = Path(shutil.copy(finished / "last.safetensors", tmp_path / "start.safetensors"))
    began = replace(plain(drawn_people, tmp_path / "run"), model=replace(MODEL, weights=str(start)))
    train(began)
    whole = shutil.copytree(tmp_path / "run", tmp_path / "whole")
    train(replace(began, output=str(whole), epochs=2), resume=True)
    start.unlink()
    train(replace(began, epochs=2), resume=True)
    assert content(tmp_path / "run")["last.safetensors"] == content(whole)["last.safetensors"]


def test_a_run_may_end_without_a_validation(drawn_people, tmp_path, monkeypatch, capsys):
    configuration = replace(plain(drawn_people, tmp_path), epochs=4, evaluate_every=3)
    trained = Trainer.finish_epoch

    def stopped(self, epoch):
        trained(self, epoch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(InterruptedRun):
        patch.setattr(Trainer, "finish_epoch", stopped)
        train(configuration)
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path), "--epochs=1"]) == 0
    assert f"not validated; checkpoints in {tmp_path}" in capsys.readouterr().out


def test_other_joints_are_refused(drawn_people, run, tmp_path):
    data = shutil.copytree(drawn_people, tmp_path / "data")
    for split in ("train", "val"):
        path = data / split / "annotations.json"
        described = json.loads(path.read_text())
        names = described["categories"][0]["keypoints"]
        names[0], names[5] = names[5], names[0]
        path.write_text(json.dumps(described))
    before = content(run)
    with pytest.raises(InputError, match="resume: joints of the data: expected"):
        train(plain(data, run, epochs=2), resume=run)
    assert content(run) == before


def test_other_losses_are_refused_and_name_what_differs(drawn_people, run, tmp_path):
    config = DistillationConfig(
        output=str(run),
        model=MODEL,
        teacher=str(run),
        data=DataConfig(root=str(drawn_people), workers=0),
        sape=SAPEConfig(enabled=True),
        epochs=2,
    )
    before = content(run)
    with pytest.raises(InputError, match=r"resume: loss\.sape\.\S+: expected no such tensor as in"):
        train(config, resume=run)
    assert content(run) == before


def test_a_new_run_that_is_refused_writes_nothing(drawn_people, tmp_path):
    with pytest.raises(InputError, match="batch_size"):
        train(plain(drawn_people, tmp_path / "run", batch_size=1))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fraction", "size", "message"),
    [(1 / 48, 32, r"data\.labelled_fraction: labelled people: expected at least 2"), (1 / 48, 64, None)],
)
def test_one_person_trains_where_batch_norm_can(drawn_people, tmp_path, fraction, size, message):
    data = DataConfig(root=str(drawn_people), workers=0, labelled_fraction=fraction)
    config = plain(drawn_people, tmp_path / "run", data=data, model=replace(MODEL, input_size=(size, size)))
    if message is None:
        assert train(config)["step"] == 1
        return
    with pytest.raises(InputError, match=message):
        train(config)
    assert not (tmp_path / "run").exists()


def test_another_batch_size_leaves_learning_rate_and_progress_where_they_were(
    drawn_people, tmp_path, monkeypatch
):
    rates, places = [], []

    def recorded(config, *arguments):
        rates.append(learning_rate(config, *arguments))
        return rates[-1]

    def record_progress(self, *arguments, progress, **options):
        places.append(progress)
        return original(self, *arguments, progress=progress, **options)

    from cdkd_ext.training import DistillationTask

    original = DistillationTask.forward
    monkeypatch.setattr("cdkd_ext.training.trainee.learning_rate", recorded)
    monkeypatch.setattr(DistillationTask, "forward", record_progress)
    config = plain(drawn_people, tmp_path / "run", batch_size=8, epochs=4, evaluate_every=4)
    config.optimizer.warmup = 0.0
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr("cdkd_ext.training.loop.Trainer._save", stopping_after_the_first(tmp_path / "run"))
        train(config)
    assert len(rates) == 6
    record = train(replace(config, batch_size=24), resume=True)
    # two steps in each of the three epochs that are left
    expected = [learning_rate(config.optimizer, step, 2, 4) for step in range(2, 8)]
    assert rates[6:] == pytest.approx(expected)
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert places[6:] == pytest.approx([step / 7 for step in range(2, 8)])
    assert record["step"] == 12


def stop_in_step(patch, step, signal_number=None):
    """Ctrl-C in the middle of a step, or a signal sent in the middle of it."""
    original = Trainer._train_step

    def train_step(self, batch):
        losses = original(self, batch)
        if self.step == step:
            if signal_number is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal_number)
        return losses

    patch.setattr(Trainer, "_train_step", train_step)


def without_times(folder):
    records = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [
        {name: value for name, value in record.items() if name not in ("seconds", "samples_per_second")}
        for record in records
    ]


def same_run(first, second):
    """Weights, both checkpoints, all that learns and every metric but the times."""
    for name in ("last.safetensors", "best.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert without_times(first) == without_times(second)
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in (first, second)]
    for state in states:
        state.pop("history")
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert not list(second.rglob(".*"))


DATA = {
    "images": {},
    "loading processes": {"workers": 2},
    "fixed views": {"views": 2},
    "stored crops": {"stored_crops": True},
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize(("step", "kept"), [(6, "epoch 1, step 4,"), (9, "epoch 2, step 2,")])
def test_a_run_goes_on_from_within_an_epoch(drawn_people, tmp_path, monkeypatch, kind, step, kept):
    """From its last checkpoint; an epoch has six steps."""
    data = DataConfig(root=str(drawn_people), **{"workers": 0, **DATA[kind]})
    config = plain(drawn_people, tmp_path / "broken", data=data, epochs=2, batch_size=8, checkpoint_every=2)
    train(replace(config, output=str(tmp_path / "whole"), checkpoint_every=0))
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun) as stopped:
        stop_in_step(patch, step)
        train(config)
    assert f"the checkpoint of {kept} is kept" in str(stopped.value)
    train(config, resume=True)
    same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.fixture
def terminations_raised():
    """As the command line does it."""

    def terminate(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def teacher(drawn_people, tmp_path_factory):
    output = tmp_path_factory.mktemp("teacher")
    train(plain(drawn_people, output, model=replace(MODEL, input_size=(64, 64))))
    return output


def distilled(drawn_people, output, teacher, **changes) -> DistillationConfig:
    config = DistillationConfig(**{**vars(plain(drawn_people, output)), "epochs": 2, "teacher": str(teacher)})
    config.temperature.adversarial = config.temperature.learn_weights = True
    return replace(config, **changes)


@pytest.mark.parametrize("step", [1, 3, 5])
@pytest.mark.usefixtures("terminations_raised")
def test_sigterm_keeps_a_checkpoint_after_the_step(drawn_people, tmp_path, teacher, monkeypatch, step):
    """Within an epoch and at its end, three steps each, with all that is learnt against the loss."""
    train(distilled(drawn_people, tmp_path / "whole", teacher))
    config = distilled(drawn_people, tmp_path / "broken", teacher)
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun) as stopped:
        stop_in_step(patch, step, signal.SIGTERM)
        train(config)
    assert stopped.value.terminated
    kept = f"epoch {(step - 1) // 3 + 1}, step {(step - 1) % 3 + 1},"
    assert f"terminated in step {step}; the checkpoint of {kept} is kept" in str(stopped.value)
    train(config, resume=True)
    same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.usefixtures("terminations_raised")
@pytest.mark.parametrize("reason", ["SIGTERM", "Ctrl-C", "an image"])
def test_what_ends_a_validation_leaves_the_epoch(drawn_people, tmp_path, monkeypatch, reason):
    def validate(*arguments, **options):
        if reason == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        raise KeyboardInterrupt if reason == "Ctrl-C" else InputError("a.jpg: expected a whole image")

    config = plain(drawn_people, tmp_path / "broken")
    ended = InputError if reason == "an image" else InterruptedRun
    with monkeypatch.context() as patch, pytest.raises(ended, match="epoch 1, step 3, is kept"):
        patch.setattr("cdkd_ext.training.build.evaluate_people", validate)
        train(config)
    train(replace(config, output=str(tmp_path / "whole")))
    record = train(config, resume=True)
    same_run(tmp_path / "whole", tmp_path / "broken")
    assert record["learning_rate"] > 0


@pytest.mark.usefixtures("terminations_raised")
def test_a_second_sigterm_does_not_wait(drawn_people, tmp_path, monkeypatch):
    def train_step(self, batch):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it waited")

    monkeypatch.setattr(Trainer, "_train_step", train_step)
    with pytest.raises(InterruptedRun, match="terminated in step 0; no epoch was finished"):
        train(plain(drawn_people, tmp_path / "run"))


def test_a_run_stopped_before_its_first_checkpoint_begins_again(drawn_people, tmp_path, monkeypatch, capsys):
    config = plain(drawn_people, tmp_path / "broken")
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match=r"--resume \S+` begins again"):
        stop_in_step(patch, 2)
        train(config)
    assert main(["train", "--resume", str(tmp_path / "broken")]) == 0
    assert "has no checkpoint yet: it begins with the first step" in capsys.readouterr().out
    train(replace(config, output=str(tmp_path / "whole")))
    same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_run_stopped_while_it_is_restored_says_what_is_kept(drawn_people, tmp_path, monkeypatch):
    config = plain(drawn_people, tmp_path / "run", checkpoint_every=1)
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun):
        stop_in_step(patch, 3)
        train(config)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("cdkd_ext.training.loop.load_optimizer", interrupted)
    with pytest.raises(InterruptedRun, match="the checkpoint of epoch 1, step 2, is kept; go on with"):
        train(config, resume=True)


def test_another_batch_size_within_an_epoch_leaves_nobody_out(drawn_people, tmp_path, monkeypatch):
    config = plain(drawn_people, tmp_path / "run", batch_size=8, checkpoint_every=1)
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match="epoch 1, step 4, is kept"):
        stop_in_step(patch, 5)
        train(config)
    seen = []
    original = Trainer._train_step
    monkeypatch.setattr(
        Trainer, "_train_step", lambda self, batch: seen.append(batch["index"]) or original(self, batch)
    )
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)
    record = train(replace(config, batch_size=12, checkpoint_every=0), resume=True)
    # 32 of 48 people were seen: two steps of twelve, and eight people again
    order = np.random.default_rng([0, 0]).permutation(48)
    assert torch.cat(seen).tolist() == order[24:].tolist()
    mean = float(state["progress"]["sums"]["simcc"]) / 4
    assert abs(record["simcc"] - mean) < 0.5 * mean


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_an_optimiser_s_options_that_are_given_anew_take_effect(drawn_people, run, monkeypatch, name):
    seen = []
    original = Trainer._train_step

    def train_step(self, batch):
        losses = original(self, batch)
        seen.append([dict(group, params=len(group["params"])) for group in self.optimizer.param_groups])
        return losses

    monkeypatch.setattr(Trainer, "_train_step", train_step)
    options = OptimizerConfig(name, learning_rate=3e-4, weight_decay=0.2, schedule="constant", warmup=0)
    train(plain(drawn_people, run, epochs=2, optimizer=options), resume=run)
    kernels, biases = seen[0]
    assert (kernels["weight_decay"], biases["weight_decay"]) == (0.2, 0.0)
    assert kernels["lr"] == biases["lr"] == 3e-4
    assert kernels["decoupled_weight_decay"] == (name == "adamw")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_disappears_is_one_line_and_the_checkpoint_stays(
    drawn_people, tmp_path, monkeypatch, workers
):
    root = tmp_path / "data"
    shutil.copytree(drawn_people, root)
    data = DataConfig(root=str(root), workers=workers)
    config = plain(root, tmp_path / "run", data=data, batch_size=8, checkpoint_every=1)
    original = Trainer._train_step

    def train_step(self, batch):
        if self.step == 2 and (root / "train").is_dir():
            (root / "train").rename(root / "elsewhere")
        return original(self, batch)

    with monkeypatch.context() as patch, pytest.raises(InputError) as stopped:
        patch.setattr(Trainer, "_train_step", train_step)
        train(replace(config, epochs=2))
    message = str(stopped.value)
    assert re.fullmatch(
        r"\S+\.jpg: expected an image, got No such file or directory; the checkpoint of epoch \d"
        r"(, step \d,)? is kept; go on with `cdkd train --resume \S+`",
        message,
    )
    (root / "elsewhere").rename(root / "train")
    train(replace(config, epochs=2), resume=True)
    train(replace(config, epochs=2, output=str(tmp_path / "whole")))
    same_run(tmp_path / "whole", tmp_path / "run")


def test_events_of_finished_epochs_stay(drawn_people, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = plain(drawn_people, tmp_path / "run")
    train(config)
    longer = replace(config, epochs=config.epochs + 1)
    train(longer, resume=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    history = json.loads((tmp_path / "run/metrics.json").read_text())["epochs"]
    assert [event.step for event in events.Scalars("total")] == [record["step"] for record in history]
