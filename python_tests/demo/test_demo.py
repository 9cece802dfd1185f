"""The demonstration on a handful of drawn people: the whole chain and everything it writes."""

from __future__ import annotations

import json
import re
import statistics

import cv2
import pytest

from cdkd_ext.checkpoints import save_model
from cdkd_ext.demo import DemoConfig, run, run_demo
from cdkd_ext.errors import InputError
from cdkd_ext.inference import Predictor
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.studies import engine
from cdkd_ext.training import read_config

NAMES = ("tenth_alone", "tenth_distilled", "alone", "distilled")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    return DemoConfig(
        str(output), synthetic_people=40, validation_people=12, epochs=1, views=1, seeds=2, processes=2
    )


@pytest.fixture(scope="module")
def report(small):
    return run_demo(small)


@pytest.fixture(scope="module")
def results(report):
    return json.loads((report.parent / "metrics.json").read_text())


def test_the_report_says_what_the_runs_measured(report, results):
    text = report.read_text()
    for name in NAMES:
        for seed, result in enumerate(results[name]):
            run = json.loads((report.parent / f"{name}_{seed}/metrics.json").read_text())
            assert result["pckh"] == run["epochs"][-1]["pckh"]
    for title, name in (
        ("a tenth of the labels", "tenth_alone"),
        ("a tenth of the labels + CDKD", "tenth_distilled"),
        ("all labels", "alone"),
        ("all labels + CDKD", "distilled"),
    ):
        scores = [result["pckh"] for result in results[name]]
        expected = f"{statistics.fmean(scores):.2f} ± {statistics.stdev(scores):.2f}"
        assert re.search(rf"\| student, {re.escape(title)} \|.*\| {re.escape(expected)} \|", text)
    assert "teacher" in text and "parameters" in text and "MACs" in text
    assert not re.search(r"\bnan\b", text.split("| |")[0])


def test_differences_are_paired_by_seed(report, results):
    text = report.read_text()
    assert [(one["first"], one["second"]) for one in results["comparisons"]] == [
        ("tenth_distilled", "tenth_alone"),
        ("distilled", "alone"),
        ("tenth_distilled", "alone"),
    ]
    for one in results["comparisons"]:
        pairs = zip(results[one["first"]], results[one["second"]], strict=True)
        differences = [first["pckh"] - second["pckh"] for first, second in pairs]
        assert one["each"] == pytest.approx(differences)
        assert one["value"] == pytest.approx(statistics.fmean(differences))
        assert one["low"] <= one["value"] <= one["high"] and 0 < one["p"] <= 1
        assert f"| {one['value']:+.2f} | {one['low']:+.2f} to {one['high']:+.2f} |" in text


def test_all_students_take_as_many_steps_and_see_the_labels_that_they_may(report, results):
    steps, labelled = {}, {}
    for name in NAMES:
        folder = report.parent / f"{name}_0"
        steps[name] = json.loads((folder / "metrics.json").read_text())["epochs"][-1]["step"]
        options = read_config(folder)
        labelled[name] = options["data"]["labelled_fraction"]
        assert options["model"]["name"].startswith("lowres_") and options["model"]["input_size"] == [32, 32]
    assert len(set(steps.values())) == 1
    assert labelled == {"tenth_alone": 0.1, "tenth_distilled": 0.1, "alone": 1.0, "distilled": 1.0}
    # whatever the labels, the teacher was asked once
    assert len(list((report.parent / "views").glob("compact-*"))) == 1


def test_the_images_can_be_opened(report):
    predictions = cv2.imread(str(report.parent / "predictions.png"))
    assert predictions.shape[1] > 7 * 224
    assert predictions.std() > 20
    assert cv2.imread(str(report.parent / "curves.png")).shape[0] > 200


def test_there_is_a_page_to_look_at_and_a_file_to_use(report):
    page = (report.parent / "report.html").read_text()
    for name in (*(f"{name}_0" for name in NAMES), "teacher", "labels"):
        assert name in page
    predictor = Predictor.load(report.parent / "student.onnx")
    (result,) = predictor.follow(report.parent / "synthetic/val/images/000000.jpg", "whole")
    assert result.poses.keypoints.shape == (1, len(predictor.joints), 2)


def test_a_second_call_keeps_the_finished_runs(report, small, monkeypatch):
    monkeypatch.setattr(run, "_write_what_to_use", lambda output, people: None)
    state = report.parent / "alone_0/state.pt"
    before = state.stat().st_mtime_ns, report.read_text().split("Everything")[0]
    run_demo(small)
    assert (state.stat().st_mtime_ns, report.read_text().split("Everything")[0]) == before


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(InputError, match="seeds: expected at least 2"):
        run_demo(DemoConfig(str(tmp_path), seeds=1))
    with pytest.raises(InputError, match="synthetic_people: expected a positive number"):
        run_demo(DemoConfig(str(tmp_path), synthetic_people=0))
    with pytest.raises(InputError, match="teacher: expected an existing checkpoint"):
        run_demo(DemoConfig(str(tmp_path), teacher=str(tmp_path / "none.safetensors")))
    assert not any(tmp_path.iterdir())
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"teacher: .*teacher\.safetensors is no complete safetensors file"):
        run_demo(DemoConfig(str(tmp_path), str(weights)))
    save_model(
        create_model("hrnet_w8_small", input_size=(64, 64), num_joints=17, joints=COCO_JOINTS), weights
    )
    with pytest.raises(
        InputError, match="teacher: expected a checkpoint with the joints of drawn people, MPII's"
    ):
        run_demo(DemoConfig(str(tmp_path), str(weights)))
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.safetensors"]


def test_a_training_that_fails_is_named_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_CLI", ("-c", "print('began'); raise SystemExit('cdkd: what went wrong')"))
    with pytest.raises(InputError, match=r"distilled_0 failed: cdkd: what went wrong \(see .*log\.txt\)"):
        run_demo(DemoConfig(str(tmp_path), None, 8, 4, epochs=1, views=1, seeds=2, processes=1))
