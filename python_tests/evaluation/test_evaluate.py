"""Evaluation of checkpoints on the official layouts of MPII and COCO."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import coco_keypoint_ap, evaluate_checkpoint, evaluate_people, table
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import ModelSpec, SimCCOutput, create_model
from cdkd_ext.training import ModelConfig, TrainingConfig, train

SMALL = ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0)
COMMAND = str(Path(sys.executable).with_name("cdkd"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mpii(root, **changes):
    config = DataConfig(
        root=str(root / "mpii"),
        format="mpii",
        train="annot/train.json",
        train_images="images",
        val="annot/valid.json",
        val_images="images",
        head_boxes="annot/gt_valid.mat",
        workers=0,
    )
    return replace(config, **changes)


def coco(root, **changes):
    config = DataConfig(
        root=str(root / "coco"),
        train="annotations/person_keypoints_train2017.json",
        train_images="train2017",
        val="annotations/person_keypoints_val2017.json",
        val_images="val2017",
        workers=0,
    )
    return replace(config, **changes)


class ColorFinder(nn.Module):
    """A network that finds each joint by its colour, to one pixel of the crop."""

    def __init__(self, num_joints, colors, size=128):
        super().__init__()
        self.num_joints = num_joints
        self.spec = ModelSpec(name="colors", input_size=(size, size), num_joints=num_joints, split_ratio=1.0)
        self.colors = nn.Parameter(torch.as_tensor(colors[:num_joints]).float())

    def forward(self, images):
        pixels = images.float()[:, None]
        closeness = -(pixels - self.colors[None, :, :, None, None]).square().sum(2) / 1000
        return SimCCOutput(closeness, closeness.amax(-2), closeness.amax(-1))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The same weights as files of this package and of another, for MPII's and COCO's joints."""
    folder = tmp_path_factory.mktemp("weights")
    for joints in (MPII_JOINTS, COCO_JOINTS):
        torch.manual_seed(len(joints))
        model = create_model(SMALL.spec(joints, resample="linear"))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        save_model(model, folder / f"own_{len(joints)}.safetensors")
        state = {f"module.{name}": value for name, value in model.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3}, folder / f"foreign_{len(joints)}.pth")
    return folder


def test_a_network_that_sees_reaches_the_top_on_mpii(official_data, joint_colors):
    truth = load_validation(mpii(official_data))
    assert truth.metric == "pckh"
    assert [person.head_size for person in truth.persons] == pytest.approx([12] * 4)
    metrics = evaluate_people(ColorFinder(16, joint_colors), truth, flip_test=False)
    # within half the head, 6 pixels, and within a tenth, 1.2 pixels, at 0.98 picture pixels per crop pixel
    assert metrics["pckh"] == 100 and metrics["pckh_0.1"] > 60
    assert set(metrics["pckh_per_joint"].values()) == {100.0}
    assert metrics["reference"].endswith("annot/gt_valid.mat")


@pytest.mark.parametrize("boxes", [None, "boxes.json"])
def test_a_network_that_sees_reaches_the_top_on_coco(official_data, joint_colors, boxes):
    truth = load_validation(coco(official_data, boxes=boxes))
    assert truth.metric == "AP" and len(truth.persons) == (8 if boxes else 4)
    metrics = evaluate_people(ColorFinder(17, joint_colors), truth, flip_test=False)
    # the second box of a person gives the same pose again, and suppression takes it away
    assert metrics["AP50"] == 1 and metrics["AP"] > 0.8 and metrics["AR"] == pytest.approx(metrics["AP"])
    assert metrics["boxes"] == (f"detector's, {official_data}/coco/boxes.json" if boxes else "ground truth")


@pytest.mark.parametrize("flip_test", [False, True])
def test_a_checkpoint_of_another_code_base_counts_like_one_of_ours(
    official_data, checkpoints, tmp_path, flip_test
):
    own = evaluate_checkpoint(
        str(checkpoints / "own_16.safetensors"),
        mpii(official_data),
        flip_test=flip_test,
        output=str(tmp_path / "report.json"),
    )
    foreign = evaluate_checkpoint(
        str(checkpoints / "foreign_16.pth"), mpii(official_data), model=SMALL, flip_test=flip_test
    )
    assert own.pop("weights") != foreign.pop("weights")
    assert own == foreign
    assert own["flip_test"] is flip_test and own["model"] == "hrnet_w8_small" and own["people"] == 4
    assert json.loads((tmp_path / "report.json").read_text())["pckh_per_joint"] == own["pckh_per_joint"]


def test_a_checkpoint_is_measured_with_the_padding_it_was_trained_with(official_data, checkpoints, tmp_path):
    trained = load_model(checkpoints / "own_17.safetensors")
    trained.spec = replace(trained.spec, padding=1.5)
    save_model(trained, tmp_path / "wide.safetensors")
    wide, narrow = str(tmp_path / "wide.safetensors"), str(checkpoints / "own_17.safetensors")
    paddings, results = [], []
    for weights, padding in ((wide, None), (wide, 1.5), (narrow, 1.5), (narrow, None)):
        file = tmp_path / f"{len(results)}.json"
        report = evaluate_checkpoint(weights, coco(official_data, padding=padding), results=str(file))
        paddings.append(report["padding"])
        results.append(file.read_text())
    assert paddings == [1.5, 1.5, 1.5, 1.25]
    assert results[0] == results[1] == results[2] != results[3]


def test_a_checkpoint_is_measured_on_crops_as_it_was_trained(official_data, checkpoints, tmp_path):
    trained = load_model(checkpoints / "own_17.safetensors")
    assert trained.spec.resample == "linear"
    trained.spec = replace(trained.spec, resample="area")
    save_model(trained, tmp_path / "area.safetensors")
    area, linear = str(tmp_path / "area.safetensors"), str(checkpoints / "own_17.safetensors")
    ways, results = [], []
    for weights, resample in ((area, None), (linear, "area"), (linear, None), (area, "linear")):
        file = tmp_path / f"{len(results)}.json"
        report = evaluate_checkpoint(weights, coco(official_data, resample=resample), results=str(file))
        ways.append(report["resample"])
        results.append(file.read_text())
    assert ways == ["area", "area", "linear", "linear"]
    assert results[0] == results[1] != results[2] == results[3]


def test_faults_of_cameras_are_measured_reproducibly(official_data, checkpoints, tmp_path):
    results = []
    for strength in (0.0, 1.0, 1.0):
        file = tmp_path / f"{len(results)}.json"
        config = coco(official_data, camera_faults=strength)
        report = evaluate_checkpoint(str(checkpoints / "own_17.safetensors"), config, results=str(file))
        assert report["camera_faults"] == strength
        results.append(file.read_text())
    assert results[0] != results[1] == results[2]


def test_results_in_the_submission_format_give_the_same_metrics(official_data, checkpoints, tmp_path):
    data = coco(official_data, boxes="boxes.json", min_box_score=0.7)
    weights = str(checkpoints / "own_17.safetensors")
    report = evaluate_checkpoint(weights, data, results=str(tmp_path / "results.json"))
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == report["people"] == 4 and len(results[0]["keypoints"]) == 51
    annotations = official_data / "coco/annotations/person_keypoints_val2017.json"
    again = coco_keypoint_ap(annotations, tmp_path / "results.json")
    assert {name: report[name] for name in again} == pytest.approx(again, nan_ok=True, abs=0)
    assert report["boxes"].endswith("boxes.json, scores from 0.7")


def test_a_submission_for_pictures_whose_annotations_are_unknown(official_data, checkpoints, tmp_path):
    """COCO's test-dev: an image list whose person category tells no joints, and a detector's boxes."""
    annotations = official_data / "coco/annotations/person_keypoints_val2017.json"
    content = {
        "images": json.loads(annotations.read_text())["images"],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}],
    }
    (tmp_path / "image_info.json").write_text(json.dumps(content))
    weights, results = str(checkpoints / "own_17.safetensors"), tmp_path / "results.json"
    data = coco(
        official_data,
        val=str(tmp_path / "image_info.json"),
        boxes="boxes.json",
        joints="coco",
        metric="none",
    )
    report = evaluate_checkpoint(weights, data, results=str(results))
    assert report["people"] == 8 and not {"AP", "pckh"} & report.keys()
    assert table(report).startswith("not measured, 8 people; boxes: detector's")
    evaluate_checkpoint(weights, coco(official_data, boxes="boxes.json"), results=str(tmp_path / "val.json"))
    assert results.read_text() == (tmp_path / "val.json").read_text()
    with pytest.raises(InputError, match=r"image_info\.json"):
        evaluate_checkpoint(weights, replace(data, joints=None))


@pytest.mark.parametrize("boxes", [None, "boxes.json"])
def test_results_of_joints_without_oks_constants(official_data, checkpoints, tmp_path, caplog, boxes):
    annotations = official_data / "coco/annotations/person_keypoints_val2017.json"
    content = json.loads(annotations.read_text())
    own = replace(COCO_JOINTS, names=tuple(f"{name}_2" for name in COCO_JOINTS.names), sigmas=None)
    content["categories"] = [{"id": 5, "name": "player", **own.to_category()}]
    for annotation in content["annotations"]:
        annotation["category_id"] = 5
    (tmp_path / "own.json").write_text(json.dumps(content))
    detections = json.loads((official_data / "coco/boxes.json").read_text())
    (tmp_path / "boxes.json").write_text(json.dumps([box | {"category_id": 5} for box in detections]))
    model = load_model(checkpoints / "own_17.safetensors")
    model.spec = replace(model.spec, joints=own)
    save_model(model, tmp_path / "own.safetensors")
    data = coco(
        official_data,
        val=str(tmp_path / "own.json"),
        boxes=boxes and str(tmp_path / boxes),
        metric="none",
    )
    evaluate_checkpoint(str(tmp_path / "own.safetensors"), data, results=str(tmp_path / "results.json"))
    results = json.loads((tmp_path / "results.json").read_text())
    # both boxes of each person stay, where OKS-NMS would leave one
    assert [result["image_id"] for result in results] == ([1, 1, 2, 2, 3, 3, 4, 4] if boxes else [1, 2, 3, 4])
    assert {result["category_id"] for result in results} == {5}
    said = [record.getMessage() for record in caplog.records if "OKS-NMS" in record.getMessage()]
    assert len(said) == (1 if boxes else 0)
    # they are those of COCO's joints, which the network takes them for
    reference = coco(official_data, boxes=boxes, metric="none")
    evaluate_checkpoint(
        str(checkpoints / "own_17.safetensors"), reference, results=str(tmp_path / "coco.json")
    )
    known = [result["keypoints"] for result in json.loads((tmp_path / "coco.json").read_text())]
    assert all(keypoints in [result["keypoints"] for result in results] for keypoints in known)


def test_the_score_of_a_joint_comes_from_the_axes_as_told(official_data, checkpoints, tmp_path):
    weights, scores = str(checkpoints / "own_17.safetensors"), {}
    for name in ("min", "max", "mean"):
        file = tmp_path / f"{name}.json"
        evaluate_checkpoint(weights, coco(official_data), simcc_score=name, results=str(file))
        scores[name] = torch.tensor([result["keypoints"][2::3] for result in json.loads(file.read_text())])
    assert (scores["min"] < scores["max"]).any()
    torch.testing.assert_close(scores["mean"], (scores["min"] + scores["max"]) / 2)


def test_the_size_of_the_batches_changes_nothing(official_data, checkpoints, tmp_path):
    weights, results = str(checkpoints / "own_17.safetensors"), []
    for size in (1, 3):
        file = tmp_path / f"{size}.json"
        evaluate_checkpoint(weights, coco(official_data), batch_size=size, results=str(file))
        results.append(json.loads(file.read_text()))
    for mine, theirs in zip(*results, strict=True):
        assert mine["keypoints"] == pytest.approx(theirs["keypoints"], abs=1e-4)


@pytest.mark.parametrize(
    ("make", "weights", "options", "message"),
    [
        (mpii, "foreign_16.pth", {}, "model: expected the network .*does not say what network it is"),
        (
            mpii,
            "own_16.safetensors",
            {"model": replace(SMALL, input_size=(64, 64))},
            r"model\.input_size: expected \(32, 32\) as .*got \(64, 64\)",
        ),
        (mpii, "own_16.safetensors", {"model": replace(SMALL, split_ratio=3.0)}, r"model\.split_ratio"),
        (mpii, "foreign_16.pth", {"model": replace(SMALL, split_ratio=3.0)}, r"foreign_16\.pth: expected"),
        (
            mpii,
            "own_16.safetensors",
            {"results": "r.json"},
            "results: expected nothing for joints without sigmas",
        ),
        (mpii, "own_16.safetensors", {"batch_size": 0}, "batch_size: expected a positive number"),
        (mpii, "none.pth", {}, "weights: expected an existing checkpoint"),
    ],
)
def test_what_does_not_fit_is_named(official_data, checkpoints, make, weights, options, message):
    with pytest.raises(InputError, match=message):
        evaluate_checkpoint(str(checkpoints / weights), make(official_data), **options)


def test_joints_of_another_data_set_are_matched_by_name(official_data, checkpoints):
    weights = str(checkpoints / "own_17.safetensors")
    report = evaluate_checkpoint(weights, mpii(official_data))
    assert "pelvis from the middle of left_hip and right_hip" in report["joints"]
    assert "nothing for upper_neck, head_top" in report["joints"] and report["joints"] in table(report)
    # NaN: nothing is known of it
    assert report["pckh_per_joint"]["head"] != report["pckh_per_joint"]["head"]
    assert "joints" not in evaluate_checkpoint(weights, coco(official_data))
    with pytest.raises(InputError, match="simcc_score: expected min for a network of other joints"):
        evaluate_checkpoint(weights, mpii(official_data), simcc_score="max")


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (mpii, {"head_boxes": None}, r"data\.head_boxes: expected the official gt_valid\.mat"),
        (mpii, {"head_boxes": "annot/none.mat"}, r"none\.mat: expected .*No such file"),
        (mpii, {"boxes": "boxes.json"}, r"data\.boxes: expected nothing"),
        (mpii, {"joints": "coco"}, r"data\.joints: expected nothing: MPII's format has its own, got coco"),
        (
            mpii,
            {"clip_boxes": True},
            r"data\.clip_boxes: expected False: MPII gives the people's places, got True",
        ),
        (
            mpii,
            {"min_box_score": 0.5},
            r"data\.min_box_score: expected 0\.0: MPII gives the people's places, got 0\.5",
        ),
        (mpii, {"category": "dog"}, r"data\.category: expected nothing"),
        (mpii, {"metric": "AP"}, r"sigmas of the joints: expected OKS constants"),
        (mpii, {"format": "lsp"}, r"data\.format: expected one of 'coco', 'mpii'"),
        (coco, {"head_boxes": "x.mat"}, r"data\.head_boxes: expected nothing for COCO-format data"),
        (coco, {"metric": "pckh"}, r"head_size: expected head lengths"),
        (
            coco,
            {"metric": "pckh", "boxes": "boxes.json"},
            r"data\.metric: expected AP with a detector's boxes",
        ),
        (coco, {"metric": "none"}, r"data\.metric: expected a metric that tells which checkpoint is best"),
        (coco, {"metric": "oks"}, r"data\.metric: expected one of"),
        (coco, {"boxes": "none.json"}, r"none\.json: .*No such file"),
    ],
)
def test_what_cannot_be_measured_is_known_before_the_training(
    official_data, tmp_path, make, changes, message
):
    data = make(official_data, **changes)
    with pytest.raises(InputError, match=message):
        train(TrainingConfig(output=str(tmp_path / "run"), model=SMALL, data=data, epochs=1))
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(("make", "name"), [(mpii, "pckh"), (coco, "AP")])
def test_trainings_keep_the_best_by_their_metric(official_data, tmp_path, capsys, make, name):
    config = TrainingConfig(
        output=str(tmp_path), model=SMALL, data=make(official_data), epochs=2, batch_size=4
    )
    record = train(config)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics[f"best_{name}"] == max(epoch[name] for epoch in metrics["epochs"])
    printed = capsys.readouterr().out
    assert "validation: 4 people, boxes: ground truth" in printed
    assert printed.splitlines()[-1].endswith(f"boxes: ground truth; checkpoints in {tmp_path}")
    report = evaluate_checkpoint(str(tmp_path / "last.safetensors"), make(official_data))
    assert report[name] == record[name]


def test_one_process_and_several_write_the_same_files(official_data, checkpoints, tmp_path, capsys):
    """Eight batches of one box, by torch's launcher for two processes and in one."""
    arguments = [
        "eval",
        str(checkpoints / "foreign_17.pth"),
        "--recipe=coco_w32_32",
        "--model.name=hrnet_w8_small",
        f"--data.root={official_data}/coco",
        "--data.boxes=boxes.json",
        "--data.workers=0",
        "--batch_size=1",
        "--cpu=true",
    ]
    files = [[f"--output={tmp_path}/{n}.json", f"--results={tmp_path}/{n}_results.json"] for n in (1, 2)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    several = subprocess.run(
        [*launcher, "--no-python", COMMAND, *arguments, *files[1]],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    assert several.returncode == 0, several.stderr
    assert main([*arguments, *files[0]]) == 0
    printed = capsys.readouterr().out
    assert printed == several.stdout and printed.count("AP50") == 1
    assert "8 people; boxes: detector's" in printed
    for suffix in (".json", "_results.json"):
        assert (tmp_path / f"1{suffix}").read_text() == (tmp_path / f"2{suffix}").read_text()
    assert len(json.loads((tmp_path / "1_results.json").read_text())) >= 4


@pytest.mark.parametrize(
    ("precision", "fast", "said"),
    [("bf16", "float32", True), ("bf16", "bfloat16", False), ("no", "float32", False)],
)
def test_bfloat16_without_instructions_for_it_is_told(monkeypatch, capsys, precision, fast, said):
    monkeypatch.setattr("cdkd_ext.evaluation.evaluate.fast_precision", lambda device: fast)
    make_accelerator(cpu=True, precision=precision)
    told = capsys.readouterr().out
    assert told.startswith("precision bf16: this processor has no instructions for it") if said else not told


def test_a_process_trains_in_one_precision_after_another():
    for precision in ("no", "bf16", "no"):
        assert make_accelerator(cpu=True, precision=precision).mixed_precision == precision


def test_no_file_is_written_over_another_that_counts(official_data, checkpoints, tmp_path, monkeypatch):
    data = coco(official_data)
    weights = checkpoints / "own_17.safetensors"
    annotations = official_data / "coco/annotations/person_keypoints_val2017.json"
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "metrics.json"):
        (run / name).write_text("{}")
    same = tmp_path / "same.json"
    monkeypatch.chdir(run)
    for options, message in (
        ({"output": str(same), "results": str(tmp_path / "run/../same.json")}, "results: .* that of output"),
        ({"output": str(weights)}, "output: .* the weights"),
        ({"results": str(annotations)}, "results: .* the annotations"),
        (
            {"output": "metrics.json"},
            f"output: expected a file of its own, got metrics.json, a file of the run {run}",
        ),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_checkpoint(str(weights), data, **options)
    assert (run / "metrics.json").read_text() == "{}" and not same.exists()
