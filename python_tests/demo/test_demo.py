"""The demonstration on a handful of drawn people: the whole chain and everything it writes."""

from __future__ import annotations

import json
import re
import statistics

import cv2
import pytest

from cdkd_ext.demo import DemoConfig, run_demo
from cdkd_ext.errors import InputError
from cdkd_ext.inference import Predictor


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    return DemoConfig(
        str(output), synthetic_people=32, teacher_epochs=1, student_epochs=1, views=1, seeds=2, processes=2
    )


@pytest.fixture(scope="module")
def report(small):
    return run_demo(small)


def test_the_report_says_what_the_runs_measured(report):
    text = report.read_text()
    results = json.loads((report.parent / "metrics.json").read_text())
    for arm in ("alone", "distilled"):
        for seed, result in enumerate(results[arm]):
            run = json.loads((report.parent / f"{arm}_{seed}/metrics.json").read_text())
            assert result["pckh"] == run["epochs"][-1]["pckh"]
    differences = [
        after["pckh"] - before["pckh"]
        for before, after in zip(results["alone"], results["distilled"], strict=True)
    ]
    expected = f"{statistics.fmean(differences):+.2f} ± {statistics.stdev(differences):.2f}"
    assert re.search(rf"\| difference \|.*\| {re.escape(expected)} \|", text)
    assert "teacher" in text and "parameters" in text and "MACs" in text
    assert not re.search(r"\bnan\b", text.split("| |")[0])


def test_the_images_can_be_opened(report):
    predictions = cv2.imread(str(report.parent / "predictions.png"))
    assert predictions.shape[1] > 5 * 224
    assert predictions.std() > 20
    assert cv2.imread(str(report.parent / "curves.png")).shape[0] > 200


def test_there_is_a_page_to_look_at_and_a_file_to_use(report):
    page = (report.parent / "report.html").read_text()
    for name in ("distilled_0", "alone_0", "teacher", "labels"):
        assert name in page
    predictor = Predictor.load(report.parent / "student.onnx")
    (result,) = predictor.follow(report.parent / "synthetic/val/images/000000.jpg", "whole")
    assert result.poses.keypoints.shape == (1, len(predictor.joints), 2)


def test_a_second_call_keeps_the_finished_runs(report, small):
    state = report.parent / "alone_0/state.pt"
    before = state.stat().st_mtime_ns, report.read_text().split("Everything")[0]
    run_demo(small)
    assert (state.stat().st_mtime_ns, report.read_text().split("Everything")[0]) == before


def test_numbers_that_are_too_small_are_refused(tmp_path):
    with pytest.raises(InputError, match="seeds: expected at least 2"):
        run_demo(DemoConfig(str(tmp_path), seeds=1))
    with pytest.raises(InputError, match="synthetic_people: expected a positive number"):
        run_demo(DemoConfig(str(tmp_path), synthetic_people=0))
