"""The page about runs: its numbers, its people, and what a browser makes of it."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from cdkd_ext.checkpoints import save_model
from cdkd_ext.cli import main
from cdkd_ext.data import (
    DataConfig,
    EvaluationSet,
    crop_matrix,
    load_coco_persons,
    region_from_box,
    transform_points,
)
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import evaluate_people
from cdkd_ext.images import decode_image
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.reporting import Predicted, RunsOnPeople, predict_runs, write_report
from cdkd_ext.reporting.accuracy import Accuracy, Yardstick
from cdkd_ext.reporting.cases import chosen_cases, draw_case
from cdkd_ext.reporting.page import render

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")


def network_of(joints, size=32, seed=0):
    torch.manual_seed(seed)
    return create_model(
        "lowres_small", input_size=(size, size), num_joints=len(joints), joints=joints, split_ratio=2.0
    )


@pytest.fixture(scope="module")
def truth(drawn_people):
    return load_validation(DataConfig(root=str(drawn_people)))


@pytest.fixture(scope="module")
def runs(drawn_people, truth, tmp_path_factory):
    """Two runs of untrained networks, and the checkpoint that is said to have taught the second one."""
    root = tmp_path_factory.mktemp("runs")
    save_model(network_of(truth.joints, 64, 9), root / "large.safetensors")
    for number, name in enumerate(("alone", "dist<illed>")):
        save_model(network_of(truth.joints, seed=number), root / name / "best.safetensors")
        options = {"data": {"root": str(drawn_people)}, "flip_test": True, "seed": number}
        if number:
            options["teacher"] = str(root / "large.safetensors")
        (root / name / "config.yaml").write_text(yaml.safe_dump(options))
        epochs = [
            {"epoch": 1, "total": 4.0, "seconds": 90.0},
            {"epoch": 2, "total": 3.0, "seconds": 90.0, "pckh": 7.0},
        ]
        (root / name / "metrics.json").write_text(json.dumps({"epochs": epochs}))
    return [str(root / "alone"), str(root / "dist<illed>")]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["report", *runs, f"--output={output}", "--cases=3"]) == 0
    return output


def predicted(truth, shift=0.0, **options):
    keypoints = np.stack([person.keypoints for person in truth.persons]) + np.float32(shift)
    scores = np.ones(keypoints.shape[:2], np.float32)
    return Predicted("exact", keypoints, scores, "none", (32, 32), 1.25, "area", False, 0.2, **options)


def test_accuracy_is_that_of_the_evaluation(runs, truth):
    found = predict_runs(runs)
    assert [run.name for run in found.runs] == ["alone", "dist<illed>"] and found.everybody == 12
    assert found.teacher is not None and found.teacher.input_size == (64, 64)
    accuracy = Accuracy(truth, Yardstick.of(truth), found.runs[0])
    expected = evaluate_people(network_of(truth.joints), truth, flip_test=True)
    assert accuracy.mean() == pytest.approx(expected["pckh"])
    assert accuracy.per_joint() == pytest.approx(expected["pckh_per_joint"])


def test_what_is_right_is_right_and_what_is_wrong_is_wrong(truth):
    yardstick = Yardstick.of(truth)
    exact = Accuracy(truth, yardstick, predicted(truth))
    assert exact.mean() == 100 and exact.errors().max() == 0
    assert exact.curve()[1][0] == 100 and set(exact.by_size()[1]) == {100.0}
    far = Accuracy(truth, yardstick, predicted(truth, shift=1e4))
    assert far.mean() == 0 and far.errors().min() == 1
    assert far.by_size()[0] == sorted(far.by_size()[0])
    half = np.nanmedian(yardstick.lengths) * 0.25 / np.sqrt(2)
    near = Accuracy(truth, yardstick, predicted(truth, shift=half))
    thresholds, shares = near.curve()
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 100
    assert 0.1 < thresholds[int(np.searchsorted(shares, 50))] < 0.4


def test_joints_that_a_network_does_not_know_are_no_mistakes(truth):
    lacking = predicted(truth)
    lacking.keypoints[:, 0] = np.nan
    accuracy = Accuracy(truth, Yardstick.of(truth), lacking)
    assert accuracy.mean() == 100 and not lacking.known[0] and lacking.known[1:].all()


def test_people_of_coco_are_measured_by_their_area(official_data):
    folder = official_data / "coco"
    persons, joints = load_coco_persons(
        folder / "annotations/person_keypoints_val2017.json", folder / "val2017"
    )
    truth = EvaluationSet(persons, joints, "AP", folder / "a.json", "ground truth", "", None)
    yardstick = Yardstick.of(truth)
    assert yardstick.metric == "PCK@0.1"
    side = float(np.sqrt(persons[0].area))
    for shift, expected in ((0.05, 100.0), (0.3, 0.0)):
        one = replace(truth, persons=persons[:1])
        accuracy = Accuracy(one, Yardstick.of(one), predicted(one, shift=shift * side))
        assert accuracy.mean() == expected


def test_cases_are_sorted():
    errors = np.array([0.5, np.nan, 0.1, 0.9, 0.3])
    assert chosen_cases(errors, 2) == {"worst": [3, 0], "best": [2, 4], "spread": [2, 3]}
    assert chosen_cases(np.array([np.nan]), 2) == {}


def test_the_labels_lie_on_what_the_network_sees(truth, runs):
    found = predict_runs(runs[:1])
    case = draw_case(found, 0, "")
    person = truth.persons[0]
    matrix = crop_matrix(region_from_box(person.box, (32, 32), 1.25), (32, 32))
    labels = transform_points(person.keypoints, matrix)[person.annotated > 0]
    dots = np.array([dot[:2] for dot in case.panels[-1].dots])
    # pixel i of 32 is a square of 7 from 7i to 7i + 7
    np.testing.assert_allclose(dots, 7 * (labels + 0.5), atol=0.06)
    seen, image = (
        decode_image(base64.b64decode(content.partition(",")[2])) for content in (case.seen, case.image)
    )
    assert seen.shape == (32, 32, 3) and image.shape == (224, 224, 3) and case.size == (224, 224)
    reduced = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(float) - seen).mean() < 4


def test_a_teacher_that_is_gone_is_said(truth, runs):
    found = RunsOnPeople(truth, 12, predict_runs(runs[:1]).runs, None, "teacher: expected <b> & that")
    assert "Without the teacher: teacher: expected &lt;b&gt; &amp; that" in render(found, cases=1)
    assert "teacher" not in re.findall(r'class="panel panel-([\w-]+)"', render(found, cases=1))


def test_the_page_needs_nothing_and_escapes_names(page):
    text = page.read_text()
    assert "dist&lt;illed&gt;" in text and "dist<illed>" not in text
    for reference in re.findall(r'(?:href|src)="([^"]*)"', text):
        assert reference.startswith(("#", "data:image/")), reference
    assert not re.search(r"(?:@import|url\()\s*[\"']?(?!#)", text) and "<script" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


# what a reader's clicks change, told by the browser
_CLICKS = """
<script>
const shown = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length).length;
const found = {};
const at = (name) => { found[name] = {
  cases: shown("figure.case"), panels: shown(".panel"), teacher: shown(".panel-teacher"), limbs: shown(".limbs line"),
  full: shown("use.full"), seen: shown("use.seen") }; };
const click = (id) => document.getElementById(id).click();
at("start"); click("order-best"); at("best"); click("show-teacher"); at("without teacher");
click("image-full"); at("full"); click("skeletons"); at("bare");
found.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
found.loaded = performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:")).length;
found.focusable = [...document.querySelectorAll("input, summary, a")].every((e) => e.tabIndex >= 0);
found.rows = [...document.querySelectorAll("#networks tbody tr")].map((r) => r.cells[2].textContent);
found.charts = shown(".charts svg");
document.body.innerHTML = "<pre id='found'>" + JSON.stringify(found) + "</pre>";
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_shows_and_hides_what_is_chosen(page, runs, truth, tmp_path, width):
    (tmp_path / "page.html").write_text(page.read_text().replace("</body>", _CLICKS + "</body>"))
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (text,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    found = json.loads(html.unescape(text))
    assert found["start"]["cases"] == found["best"]["cases"] == 3
    assert found["start"]["panels"] == 3 * 4 and found["start"]["teacher"] == 3
    assert found["without teacher"]["panels"] == 3 * 3 and found["without teacher"]["teacher"] == 0
    assert found["start"]["seen"] > 0 == found["start"]["full"]
    assert found["full"]["full"] > 0 == found["full"]["seen"]
    assert found["full"]["limbs"] > 0 == found["bare"]["limbs"]
    assert not found["wide"] and found["loaded"] == 0 and found["focusable"] and found["charts"] == 4
    expected = evaluate_people(network_of(truth.joints), truth, flip_test=True)["pckh"]
    assert float(found["rows"][0]) == pytest.approx(expected, abs=0.006) and len(found["rows"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "report.pdf"}, "output: expected the name of an HTML file, got report.pdf"),
        ({"cases": 0}, "cases: expected a positive number, got 0"),
        ({"people": 0}, "people: expected a positive number, got 0"),
        ({"runs": ["nowhere"]}, "runs: expected the folder of a run, with its config.yaml, got nowhere"),
        ({"runs": []}, "runs: expected the folder of at least one run, got none"),
    ],
)
def test_mistakes_are_named(runs, options, message):
    with pytest.raises(InputError, match=message):
        write_report(**{"runs": runs, **options})


def test_runs_that_cannot_be_shown_are_named(runs, tmp_path):
    own = tmp_path / "run"
    shutil.copytree(runs[0], own)
    for content, message in (
        ('{"epo', "metrics.json: expected valid JSON"),
        ("{}", "metrics.json: epochs: expected a list"),
    ):
        (own / "metrics.json").write_text(content)
        with pytest.raises(InputError, match=message):
            predict_runs([str(own)])
    (own / "config.yaml").write_text("data: {images: footage}\n")
    with pytest.raises(
        InputError, match=r"runs: expected a run whose people have labels, first, .*, got .* of footage alone"
    ):
        predict_runs([str(own)])


def test_runs_of_other_joints_are_matched_by_name(runs, truth, tmp_path):
    save_model(network_of(COCO_JOINTS), tmp_path / "other" / "best.safetensors")
    (tmp_path / "other" / "config.yaml").write_text("data: {images: footage}\n")
    found = predict_runs([runs[0], str(tmp_path / "other")])
    other = found.runs[1]
    assert other.keypoints.shape == found.runs[0].keypoints.shape
    names = np.array(truth.joints.names)
    assert {*names[~other.known]} == {"upper_neck", "head_top"}
    assert "joints by name: " in other.network and "pelvis from the middle of left_hip" in other.network
    # a student of footage alone, where there are labels after all
    data = DataConfig(root=runs_root(runs[0]))
    assert predict_runs([str(tmp_path / "other")], data=data).runs[0].name == "other"


def runs_root(run):
    return yaml.safe_load((Path(run) / "config.yaml").read_text())["data"]["root"]


def test_a_run_whose_people_are_elsewhere_says_so(runs, tmp_path, monkeypatch):
    own = tmp_path / "run"
    shutil.copytree(runs[0], own)
    (own / "config.yaml").write_text("data: {root: people}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"data\.root: expected the folder of .*run's people, .* or --data\.root"
    ):
        predict_runs([str(own)])


def test_people_that_have_moved_keep_the_files_of_their_run(runs, tmp_path):
    own, people = tmp_path / "run", tmp_path / "people"
    shutil.copytree(runs[0], own)
    shutil.copytree(runs_root(runs[0]), people)
    (people / "val/annotations.json").rename(people / "val/others.json")
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["data"] |= {"root": "gone", "val": "val/others.json"}
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    shown = predict_runs([str(own)], data=DataConfig(root=str(people)), people=2)
    assert str(shown.truth.annotation_file) == str(people / "val/others.json")


def test_a_run_that_was_validated_on_a_detectors_boxes_shows_its_people(runs, drawn_people, truth, tmp_path):
    own, people = tmp_path / "run", tmp_path / "people"
    shutil.copytree(runs[0], own)
    shutil.copytree(drawn_people, people)
    content = json.loads((people / "val/annotations.json").read_text())
    content["categories"][0]["sigmas"] = [0.05] * len(truth.joints)
    (people / "val/annotations.json").write_text(json.dumps(content))
    rows = [
        {"image_id": int(person.image_id), "category_id": 1, "bbox": person.box.tolist(), "score": 0.9}
        for person in truth.persons
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    data = {
        "root": str(people),
        "boxes": str(tmp_path / "boxes.json"),
        "min_box_score": 0.5,
        "metric": "AP",
    }
    (own / "config.yaml").write_text(yaml.safe_dump({"data": data, "flip_test": True, "seed": 0}))
    found = predict_runs([str(own)])
    assert found.everybody == len(truth.persons)
    assert all(person.annotated.any() for person in found.truth.persons)
