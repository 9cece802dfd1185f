"""Runs of version 0.1.0 load, predict and go on.

runs_0_1_0/runs.tar.xz holds what version 0.1.0 wrote for 16 drawn people, without the drawn images and the events:

- ``teacher``: `cdkd train` of hrnet_w8_small at 64x64, its best checkpoint;
- ``plain``: `cdkd train` of hrnet_w8_small at 32x32, stopped in the second of two epochs;
- ``distilled``: `cdkd distill` of the same student with a learnt temperature, one projector and one 3x3 branch,
  stopped in the second of two epochs.

To pack well, weights are a short repeating pattern, biases and statistics one value per layer, and the optimisers'
moments zeros. ``expected.json`` is what version 0.1.0 computed for joint 3 of an image with these weights.
"""

from __future__ import annotations

import json
import math
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.cli import main
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.training import read_config
from cdkd_ext.training.state import load_state

ARCHIVE = Path(__file__).parent / "runs_0_1_0/runs.tar.xz"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of the runs, as the working folder: their configurations name each other by relative paths."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["plain", "distilled"])
def test_a_checkpoint_predicts_what_it_did(runs, name):
    network = load_model(runs / name / "last.safetensors").eval()
    assert network.spec.joints.names == MPII_JOINTS.names
    assert (network.input_size, network.spec.padding) == ((32, 32), 1.25)
    image = (torch.arange(3 * 32 * 32) * 7 % 251).to(torch.uint8).reshape(1, 3, 32, 32)
    with torch.no_grad():
        output = network(image)
    expected = json.loads((runs / name / "expected.json").read_text())
    for axis, values in expected.items():
        assert len(set(values)) > 4
        torch.testing.assert_close(
            getattr(output, axis)[0, 3], torch.tensor(values), rtol=1e-4, atol=1e-4 * max(map(abs, values))
        )


@pytest.mark.parametrize(("name", "command"), [("plain", "train"), ("distilled", "distill")])
def test_an_interrupted_run_goes_on(runs, drawn_people, name, command):
    # the run's own drawn people, in the folder of version 0.1.0
    shutil.copytree(drawn_people, runs / name / "figures")
    before = load_state(runs / name / "state.pt")
    assert main([command, f"--resume={runs / name}"]) == 0
    after = load_state(runs / name / "state.pt")
    assert (before["epoch"], after["epoch"]) == (1, 2)
    assert before["task"].keys() == after["task"].keys()
    assert after["history"][0] == before["history"][0]
    assert math.isfinite(after["history"][1]["total"])
    moved = {key for key, value in after["task"].items() if not torch.equal(value, before["task"][key])}
    assert "student.mlp_head_x.bias" in moved
    assert ("loss.tau.theta" in moved, "loss.sape.projector_bias" in moved) == (name == "distilled",) * 2
    assert not (runs / name / "synthetic").exists()
    written = (runs / name / "config.yaml").read_text()
    assert "label_loss:" in written and "figures:" not in written and "visibility:" not in written


def test_its_configuration_starts_a_new_run(runs, drawn_people):
    options = ["--output=again", f"--data.root={drawn_people}", "--epochs=1", "--batch_size=48"]
    assert main(["train", "--config=plain/config.yaml", *options]) == 0
    assert read_config("again")["data"]["synthetic_people"] == 16


def test_configurations_are_read_in_today_s_words(runs):
    options = read_config("distilled")
    assert options["label_loss"]["reduction"] == "row_mean" and "labels" not in options
    assert options["data"]["synthetic_people"] == 16 and "figures" not in options["data"]
    assert options["data"]["root"] is None
    assert options["cca"]["annotated_weights"] is False and "visibility" not in options["cca"]
    assert options["data"]["padding"] == 1.25


def test_what_has_no_old_spelling_stays_as_it_is(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {name: resnet_50_upsample_free}\nlabels: {kind: hard}\nepochs: 3\n")
    assert read_config(recipe) == {
        "model": {"name": "resnet50_upsample_free"},
        "label_loss": {"kind": "hard"},
        "epochs": 3,
    }
    recipe.write_text("label_loss: {kind: hard}\ndata: {synthetic_people: 4}\nmodel: {name: hrnet_w32}\n")
    assert read_config(recipe)["data"] == {"synthetic_people": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: {}\nlabel_loss: {}\n", "labels: expected label_loss alone, got both labels and label_loss"),
        (
            "data: {figures: 1, synthetic_people: 2}\n",
            r"data\.figures: expected data\.synthetic_people alone",
        ),
        ("- a list\n", "config: expected a YAML mapping of options"),
        ("a: [\n", "expected valid YAML"),
    ],
)
def test_a_file_that_says_two_things_or_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path)
    with pytest.raises(InputError, match="config: expected an existing YAML file"):
        read_config(tmp_path / "nothing.yaml")
