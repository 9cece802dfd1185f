"""Whole trainings on a few drawn people: what they write, how they stop, and how they go on."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter

from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.data import DataConfig
from cdkd_ext.data.loading import load_people
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import evaluate_checkpoint
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.training import (
    CCAConfig,
    DistillationConfig,
    InterruptedRun,
    ModelConfig,
    NonFiniteLossError,
    OptimizerConfig,
    SAPEConfig,
    Trainer,
    TrainingConfig,
    distill,
    prepare_views,
    train,
)
from cdkd_ext.training.build import build_dataset, student_spec
from cdkd_ext.training.config import TeachingConfig

STUDENT = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)
TEACHER = ModelConfig(name="hrnet_w8_small", input_size=(64, 64), split_ratio=2.0)


def plain(drawn_people, output, **changes) -> TrainingConfig:
    config = TrainingConfig(
        output=str(output),
        model=STUDENT,
        data=DataConfig(root=str(drawn_people), workers=0),
        epochs=2,
        batch_size=16,
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def teacher(drawn_people, tmp_path_factory):
    output = tmp_path_factory.mktemp("teacher")
    train(plain(drawn_people, output, model=TEACHER, epochs=1))
    return output


def distilled(drawn_people, output, teacher, **changes) -> DistillationConfig:
    config = DistillationConfig(
        output=str(output),
        model=STUDENT,
        teacher=str(teacher),
        data=DataConfig(root=str(drawn_people), workers=0),
        sape=SAPEConfig(enabled=True),
        epochs=2,
        batch_size=16,
    )
    return replace(config, **changes)


def weights_of(output):
    return load_file(output / "last.safetensors")


def assert_same_weights(first, second):
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_run_writes_configuration_checkpoints_metrics_and_events(drawn_people, tmp_path):
    record = train(plain(drawn_people, tmp_path))
    assert 0 <= record["pckh"] <= 100
    assert record["people"] == 12
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["input_size"] == [32, 32]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    assert metrics["best_pckh"] == max(epoch["pckh"] for epoch in metrics["epochs"])
    assert list((tmp_path / "tensorboard").glob("events*"))
    model = load_model(tmp_path)
    assert model.input_size == (32, 32) and len(model.spec.joints) == 16
    assert not list(tmp_path.glob(".*"))


def test_a_training_says_which_joints_mirror_each_other_and_how_images_are_read(
    drawn_people, tmp_path, capsys
):
    train(plain(drawn_people, tmp_path, epochs=1))
    printed = capsys.readouterr().out
    assert printed.count("joints that mirror each other: ") == 1
    assert "right_ankle - left_ankle" in printed or "left_ankle - right_ankle" in printed
    assert "; images: as stored (data.upright turns them)" in printed


def test_the_same_seed_gives_the_same_bits_and_another_does_not(drawn_people, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(plain(drawn_people, tmp_path / name, epochs=1, seed=seed))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    a, c = weights_of(tmp_path / "a"), weights_of(tmp_path / "c")
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])


def interrupt_at(monkeypatch, step):
    """Ctrl-C in the middle of the given step."""
    original = Trainer._train_step

    def train_step(self, batch):
        if self.step == step:
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(Trainer, "_train_step", train_step)


@pytest.mark.parametrize("step", [1, 4])
def test_an_interrupted_run_resumes_to_the_weights_of_one_that_was_not(
    drawn_people, tmp_path, monkeypatch, step
):
    train(plain(drawn_people, tmp_path / "whole"))
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match=rf"interrupted in step {step}"):
        interrupt_at(patch, step)
        train(plain(drawn_people, tmp_path / "broken"))
    record = train(plain(drawn_people, tmp_path / "broken"), resume=True)
    assert record["epoch"] == 2
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
    metrics = json.loads((tmp_path / "broken/metrics.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]


def test_an_interrupted_distillation_resumes_with_its_projectors_and_temperature(
    drawn_people, tmp_path, teacher, monkeypatch
):
    def config(name):
        made = distilled(drawn_people, tmp_path / name, teacher)
        made.temperature.adversarial = True
        return made

    train(config("whole"))
    with (
        monkeypatch.context() as patch,
        pytest.raises(InterruptedRun, match=r"go on with `cdkd distill --resume"),
    ):
        interrupt_at(patch, 5)
        train(config("broken"))
    train(config("broken"), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
    whole, broken = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "broken")
    )
    assert any("projector" in name or "sape" in name for name in whole["task"])
    for name, value in whole["task"].items():
        assert torch.equal(value, broken["task"][name]), name


def test_a_finished_run_is_not_overwritten(drawn_people, tmp_path):
    train(plain(drawn_people, tmp_path, epochs=1))
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(InputError, match=r"output: expected a new folder, or `--resume"):
        train(plain(drawn_people, tmp_path, epochs=1))
    assert (tmp_path / "state.pt").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_term(drawn_people, tmp_path, monkeypatch):
    original = Trainer._train_step

    def train_step(self, batch):
        if self.step == 4:
            with torch.no_grad():
                self.task.student.mlp_head_x.bias.fill_(float("nan"))
        return original(self, batch)

    monkeypatch.setattr(Trainer, "_train_step", train_step)
    with pytest.raises(
        NonFiniteLossError, match=r"step 4: simcc became nan; the checkpoint of epoch 1 is kept"
    ):
        train(plain(drawn_people, tmp_path))
    assert all(torch.isfinite(value).all() for value in weights_of(tmp_path).values())


def test_distillation_trains_student_and_projectors_and_leaves_the_teacher(drawn_people, tmp_path, teacher):
    before = (teacher / "best.safetensors").read_bytes()
    record = train(distilled(drawn_people, tmp_path, teacher))
    assert {"simcc", "sape", "cca", "tau"} <= record.keys()
    assert (teacher / "best.safetensors").read_bytes() == before
    state = torch.load(tmp_path / "state.pt", weights_only=True)["task"]
    assert not any(name.startswith("teacher") for name in state)


def test_stored_teacher_outputs_train_like_a_live_teacher(drawn_people, tmp_path):
    """One step on the same views: only the half-precision storage differs."""
    torch.manual_seed(0)
    model = create_model(
        "hrnet_w8_small", input_size=(64, 64), num_joints=16, split_ratio=2.0, joints=MPII_JOINTS
    )
    for module in model.modules():
        # outputs of the size that trained weights give: fresh ones are too small for half precision
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    teacher = tmp_path / "teacher.safetensors"
    save_model(model, teacher)
    data = DataConfig(root=str(drawn_people), workers=0, views=1, cache=str(tmp_path / "cache"))
    stored = train(distilled(drawn_people, tmp_path / "stored", teacher, data=data, epochs=1, batch_size=48))
    live = train(distilled(drawn_people, tmp_path / "live", teacher, epochs=1, batch_size=48))
    for term in ("simcc", "sape", "cca"):
        assert stored[term] == pytest.approx(live[term], rel=1e-3)
    assert {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()} == {"views", "teacher"}


HEATMAP_STUDENT = replace(STUDENT, head="heatmap")
HEATMAP_TEACHER = replace(TEACHER, head="heatmap", decoding="dark")


@pytest.fixture(scope="module")
def heatmap_teacher(drawn_people, tmp_path_factory):
    output = tmp_path_factory.mktemp("heatmap_teacher")
    record = train(plain(drawn_people, output, model=HEATMAP_TEACHER, epochs=1))
    assert record["heatmap"] > 0 and "simcc" not in record
    return output


def test_a_heatmap_network_resumes_and_its_checkpoint_tells_its_head(drawn_people, tmp_path, monkeypatch):
    train(plain(drawn_people, tmp_path / "whole", model=HEATMAP_STUDENT))
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun):
        interrupt_at(patch, 4)
        train(plain(drawn_people, tmp_path / "broken", model=HEATMAP_STUDENT))
    record = train(plain(drawn_people, tmp_path / "broken", model=HEATMAP_STUDENT), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
    model = load_model(tmp_path / "broken")
    assert (model.head, model.decoding) == ("heatmap", "quarter")
    report = evaluate_checkpoint(
        str(tmp_path / "broken/last.safetensors"), DataConfig(root=str(drawn_people))
    )
    assert report["pckh"] == record["pckh"]


def test_a_heatmap_network_learns(drawn_people, tmp_path):
    """The maps' loss falls below that of maps that are zero everywhere."""
    config = plain(drawn_people, tmp_path, model=HEATMAP_STUDENT, epochs=25, evaluate_every=25)
    config.optimizer.learning_rate = 1e-2
    train(config)
    history = json.loads((tmp_path / "metrics.json").read_text())["epochs"]
    assert history[-1]["heatmap"] < 0.9 * history[0]["heatmap"]


@pytest.mark.parametrize("views", [0, 1])
def test_heatmap_networks_distil_with_sape_alone(drawn_people, tmp_path, heatmap_teacher, views):
    data = DataConfig(root=str(drawn_people), workers=0, views=views)
    config = distilled(drawn_people, tmp_path, heatmap_teacher, model=HEATMAP_STUDENT, data=data, epochs=1)
    config.cca.enabled, config.sape.enabled = False, None
    record = train(config)
    assert {"heatmap", "sape", "alpha"} <= record.keys() and "cca" not in record
    assert load_model(heatmap_teacher).decoding == "dark"


@pytest.mark.parametrize("model", [STUDENT, HEATMAP_STUDENT], ids=["classes", "heatmaps"])
def test_a_heatmap_teacher_teaches_by_sape_and_by_cca(drawn_people, tmp_path, heatmap_teacher, model):
    config = distilled(drawn_people, tmp_path / "run", heatmap_teacher, model=model, epochs=1)
    both = train(config)
    assert 0 < both["sape"] < 2 and both["cca"] > 0
    assert both["beta"] == (1 if model is HEATMAP_STUDENT else 4)


@pytest.mark.parametrize("cache", ["dense", "compact"])
def test_views_of_a_heatmap_teacher_are_stored_and_mirrored(drawn_people, tmp_path, heatmap_teacher, cache):
    data = DataConfig(root=str(drawn_people), workers=0, views=1, mirror_views=True, teacher_cache=cache)
    config = distilled(drawn_people, tmp_path, heatmap_teacher, model=HEATMAP_STUDENT, data=data, epochs=2)
    config.sape.enabled = False
    record = train(config)
    assert record["cca"] > 0 and "sape" not in record


def test_a_teacher_without_distributions_teaches_by_sape_alone(drawn_people, tmp_path):
    model = replace(HEATMAP_STUDENT, head="cal", decoding=None)
    teacher = tmp_path / "cal.safetensors"
    data = DataConfig(root=str(drawn_people))
    joints = load_people(data, tmp_path).joints
    save_model(
        create_model(model.name, input_size=(64, 64), num_joints=len(joints), joints=joints, head="cal"),
        teacher,
    )
    config = distilled(drawn_people, tmp_path / "run", teacher, model=HEATMAP_STUDENT, epochs=1)
    with pytest.raises(
        InputError, match=r"cca\.enabled: expected false: .*, got true for a teacher without distributions"
    ):
        train(config)


def test_classes_teach_heatmaps_by_sape_and_by_cca(drawn_people, tmp_path, teacher):
    config = distilled(drawn_people, tmp_path / "run", teacher, model=HEATMAP_STUDENT, epochs=1)
    both = train(config)
    assert 0 < both["sape"] < 2 and 0 < both["cca"] < 1 and both["beta"] == 1
    config.cca.alignment = "connected"
    with pytest.raises(
        InputError, match=r"cca\.alignment: expected merged, got connected for a student with heatmaps"
    ):
        train(replace(config, output=str(tmp_path / "connected")))


def test_sape_needs_as_many_channels(drawn_people, tmp_path, teacher):
    config = distilled(
        drawn_people, tmp_path, teacher, model=replace(STUDENT, channels_per_joint=2), epochs=1
    )
    with pytest.raises(
        InputError, match=r"sape\.enabled: expected as many channels .*, got true for 32 channels"
    ):
        train(config)


def test_training_starts_from_a_checkpoint_or_from_its_backbone(drawn_people, tmp_path, capsys):
    train(plain(drawn_people, tmp_path / "first", epochs=1))
    weights = str(tmp_path / "first/last.safetensors")
    still = OptimizerConfig(learning_rate=1e-30, weight_decay=0.0)
    again = plain(
        drawn_people, tmp_path / "again", epochs=1, model=replace(STUDENT, weights=weights), optimizer=still
    )
    train(again)
    first = weights_of(tmp_path / "first")
    parameters = [name for name in first if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(weights_of(tmp_path / "again")[name], first[name]) for name in parameters)
    model = replace(HEATMAP_STUDENT, weights=weights)
    with pytest.raises(InputError, match="backbone_only takes it alone"):
        train(plain(drawn_people, tmp_path / "refused", epochs=1, model=model))
    capsys.readouterr()
    model = replace(model, backbone_only=True)
    train(plain(drawn_people, tmp_path / "backbone", epochs=1, model=model, optimizer=still))
    printed = capsys.readouterr().out
    assert "2 missing (final_layer.weight; final_layer.bias), 6 dropped (final_layer" in printed
    backbone = [
        name for name in parameters if name.split(".")[0] not in ("final_layer", "mlp_head_x", "mlp_head_y")
    ]
    assert all(torch.equal(weights_of(tmp_path / "backbone")[name], first[name]) for name in backbone)


def test_stored_views_are_reused_and_not_confused(drawn_people, tmp_path):
    cache = tmp_path / "cache"
    data = DataConfig(root=str(drawn_people), workers=0, views=2, cache=str(cache))
    train(plain(drawn_people, tmp_path / "a", data=data, epochs=1))
    train(plain(drawn_people, tmp_path / "b", data=data, epochs=1, seed=1))
    assert len(list(cache.iterdir())) == 1
    train(plain(drawn_people, tmp_path / "c", data=replace(data, views=3), epochs=1))
    assert len(list(cache.iterdir())) == 2


def test_people_without_labels_only_distil(drawn_people, tmp_path, teacher):
    data = DataConfig(root=str(drawn_people), workers=0, labelled_fraction=0.0)
    record = train(distilled(drawn_people, tmp_path / "none", teacher, data=data, epochs=1))
    assert record["simcc"] == 0
    assert record["cca"] > 0
    with pytest.raises(InputError, match=r"data\.labelled_fraction"):
        train(plain(drawn_people, tmp_path / "plain", data=data))


def test_plain_training_uses_the_labelled_people_only(drawn_people, tmp_path):
    data = DataConfig(root=str(drawn_people), workers=0, labelled_fraction=0.5)
    record = train(plain(drawn_people, tmp_path, data=data, epochs=1, batch_size=8))
    assert record["step"] == 3


def test_the_temperature_s_step_is_its_own_whatever_the_clipping(
    drawn_people, tmp_path, teacher, monkeypatch
):
    """θ moves by ξ·lr·∂L/∂θ, and clipping the network's gradients to almost nothing does not shorten that."""
    moves = {}
    for clip in (0.0, 1e-6):
        config = distilled(drawn_people, tmp_path / f"clip_{clip}", teacher, epochs=1, batch_size=48)
        config.temperature.adversarial = True
        config.temperature.learning_rate = 1.0
        config.optimizer.clip = clip
        with monkeypatch.context() as patch:
            # one step lies at the start of the training, where ξ is zero
            patch.setattr("cdkd_ext.distillation.ETHT.xi", lambda self, progress: 0.5)
            train(config)
        state = torch.load(tmp_path / f"clip_{clip}/state.pt", weights_only=True)
        moves[clip] = state["task"]["loss.tau.theta"].item() - config.temperature.theta
    # small, for an untrained student's logits hardly differ; clipped along, it would round to nothing
    assert abs(moves[0.0]) > 1e-6
    assert moves[1e-6] == moves[0.0]


def test_ctrl_c_waits_for_tensorboard(drawn_people, tmp_path, monkeypatch):
    """Raised inside of the event queue, KeyboardInterrupt would leave the writer's thread waiting at the end."""
    written = []
    add_scalar = SummaryWriter.add_scalar

    def interrupted(self, name, value, step):
        os.kill(os.getpid(), signal.SIGINT)
        add_scalar(self, name, value, step)
        written.append(name)

    # a shell's background jobs ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(SummaryWriter, "add_scalar", interrupted)
    try:
        with pytest.raises(InterruptedRun):
            train(plain(drawn_people, tmp_path, epochs=3))
    finally:
        signal.signal(signal.SIGINT, before)
    epochs = json.loads((tmp_path / "metrics.json").read_text())["epochs"]
    assert len(epochs) == 1 and set(written) >= {"step", "total"}


def test_metrics_are_json_before_anything_was_measured(drawn_people, tmp_path, monkeypatch):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    with monkeypatch.context() as patch, pytest.raises(InterruptedRun):
        interrupt_at(patch, 4)
        train(plain(drawn_people, tmp_path, evaluate_every=2))
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert metrics["best_pckh"] is None and "pckh" not in metrics["epochs"][0]


def test_evaluation_needs_no_training_annotations(drawn_people, tmp_path):
    train(plain(drawn_people, tmp_path / "run", epochs=1))
    data = DataConfig(root=str(drawn_people), train="nothing.json")
    assert evaluate_checkpoint(str(tmp_path / "run"), data)["people"] == 12


def test_the_evaluation_command_agrees_with_the_run(drawn_people, tmp_path):
    record = train(plain(drawn_people, tmp_path, epochs=1))
    report = evaluate_checkpoint(
        str(tmp_path), DataConfig(root=str(drawn_people)), output=str(tmp_path / "report.json")
    )
    assert report["pckh"] == record["pckh"]
    assert json.loads((tmp_path / "report.json").read_text())["pckh_per_joint"] == report["pckh_per_joint"]


def test_a_teacher_of_other_joints_is_refused_if_it_cannot_be_matched(drawn_people, tmp_path):
    model = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=17, joints=COCO_JOINTS, head="rle")
    save_model(model, tmp_path / "coco.safetensors")
    with pytest.raises(
        InputError, match=r"teacher: joints of .*expected the joints of the data \(right_ankle"
    ):
        train(distilled(drawn_people, tmp_path / "run", tmp_path / "coco.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected a positive number, got 0"),
        ({"batch_size": -1}, "batch_size: expected"),
        ({"precision": "fp16", "cpu": True}, "precision: expected no or bf16, or a GPU, got fp16 on a CPU"),
        ({"optimizer": OptimizerConfig(learning_rate=0.0)}, r"optimizer\.learning_rate: expected"),
        ({"model": ModelConfig(name="hrnet_w8_small", input_size=(33, 32))}, "input_size: expected"),
        ({"model": ModelConfig(name="resnet9000")}, "name: expected one of"),
        ({"model": ModelConfig(name="resnet50_upsample_free", head="heatmap")}, "head: expected 'simcc'"),
        (
            {"model": ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=0.01)},
            "split_ratio: expected",
        ),
        ({"data": DataConfig(root="/nowhere")}, r"data\.root: expected an existing folder"),
    ],
)
def test_a_wrong_configuration_names_the_field(drawn_people, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(plain(drawn_people, tmp_path, **changes))
    assert not (tmp_path / "state.pt").exists()


def test_an_output_folder_that_cannot_be_written_is_named(drawn_people, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match=r"file/run.*expected a writable folder"):
        train(plain(drawn_people, blocked / "run"))


def test_the_padding_of_a_run_is_the_configured_one_and_goes_on_to_students(drawn_people, tmp_path, teacher):
    """Given, it is used and kept; else the network's own weights decide, then the teacher's, then the default."""

    def padding(name):
        return load_model(tmp_path / name / "last.safetensors").spec.padding

    data = DataConfig(root=str(drawn_people), workers=0)
    given = plain(drawn_people, tmp_path / "given", model=TEACHER, epochs=1, data=replace(data, padding=1.5))
    wide = train(given)
    assert padding("given") == 1.5
    assert load_model(teacher).spec.padding == 1.25
    # prediction and evaluation follow the weights
    report = evaluate_checkpoint(str(tmp_path / "given/last.safetensors"), data)
    assert report["pckh"] == wide["pckh"]

    train(distilled(drawn_people, tmp_path / "from_teacher", tmp_path / "given", epochs=1))
    assert padding("from_teacher") == 1.5
    model = replace(STUDENT, weights=str(tmp_path / "from_teacher/last.safetensors"))
    train(plain(drawn_people, tmp_path / "from_weights", model=model, epochs=1))
    assert padding("from_weights") == 1.5
    config = distilled(
        drawn_people, tmp_path / "own", tmp_path / "given", epochs=1, data=replace(data, padding=1.1)
    )
    train(config)
    assert padding("own") == 1.1


def test_crops_are_made_as_is_said_or_as_they_were_before(drawn_people, tmp_path):
    """A run that goes on and weights to start from keep their way; a fresh network's crops are means over areas."""
    data = DataConfig(root=str(drawn_people), workers=0)

    def trained(name, resume=False, **changes):
        train(plain(drawn_people, tmp_path / name, **{"epochs": 1, "data": data, **changes}), resume=resume)
        return load_model(tmp_path / name / "last.safetensors").spec.resample

    assert trained("fresh") == "area"
    assert trained("said", data=replace(data, resample="linear")) == "linear"
    assert trained("said", resume=True, epochs=2) == "linear"
    model = replace(STUDENT, weights=str(tmp_path / "said/last.safetensors"))
    assert trained("from_weights", model=model) == "linear"
    assert trained("changed", model=model, data=replace(data, resample="area")) == "area"
    # a teacher's crops are as it was trained on, whatever the student's are
    config = distilled(drawn_people, tmp_path / "taught", tmp_path / "said", epochs=1)
    spec = student_spec(config, MPII_JOINTS)
    teacher = config.teacher_file().load("cpu")
    assert (spec.resample, teacher.teacher_spec.resample) == ("area", "linear")
    people = load_people(data, tmp_path)
    made = build_dataset(config, people, spec, teacher)
    assert (made.resample, made.teacher_resample) == ("area", "linear")


def test_the_two_commands_of_the_package(drawn_people, tmp_path, teacher):
    record = distill(distilled(drawn_people, tmp_path, teacher, epochs=1))
    assert record["cca"] > 0
    assert distill(distilled(drawn_people, tmp_path, teacher, epochs=1), resume=True) == record


def test_what_is_stored_of_a_teacher_is_what_its_student_asks_for(drawn_people, tmp_path):
    """`cdkd cache build` stores for the very run that follows."""
    teacher = create_model(
        "hrnet_w8_small",
        input_size=(32, 32),
        num_joints=16,
        joints=MPII_JOINTS,
        head="tokenpose_b",
        depth=1,
        patch=2,
    )
    save_model(teacher, tmp_path / "teacher.safetensors")
    data = DataConfig(root=str(drawn_people), workers=0, views=1, cache=str(tmp_path / "cache"))
    student = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), head="distilpose", depth=1)
    config = DistillationConfig(
        output=str(tmp_path / "run"),
        teacher=str(tmp_path / "teacher.safetensors"),
        model=student,
        data=data,
        cca=CCAConfig(enabled=False),
        teaching=TeachingConfig(enabled=True),
        epochs=1,
        batch_size=16,
    )
    prepare_views(config)
    before = sorted(path.name for path in (tmp_path / "cache").iterdir())
    distill(config)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == before
