"""The study of students on a handful of drawn people: plan, trainings, report."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml

from cdkd_ext.cli import main
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.studies import LspStudy, StudyReport, StudyRun, lsp_study, plan_text, run_study

ROWS = ("alone", "longer", "taught")


@pytest.fixture(scope="module")
def teacher(write_teacher: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher")
    write_teacher(folder / "graph.onnx", joints=16)
    file = folder / "tutor.yaml"
    file.write_text(yaml.safe_dump({"file": "graph.onnx", "preset": "hrnet", "joints": "mpii"}))
    return str(file)


def plan_of(drawn_people: Path, teacher: str, **options: Any) -> LspStudy:
    given = {"teachers": (teacher,), "rows": ROWS, "seeds": (0,), "sizes": (32,), "models": ("lowres_small",)}
    return LspStudy(root=str(drawn_people), **{**given, "epochs": 1, "views": 1, **options})


@pytest.fixture(scope="module")
def plan(drawn_people: Path, teacher: str) -> LspStudy:
    return plan_of(drawn_people, teacher)


@pytest.fixture(scope="module")
def study(plan: LspStudy, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyReport, Path, list[str]]:
    folder = tmp_path_factory.mktemp("study")
    lines: list[str] = []
    return lsp_study(plan, str(folder), jobs=2, report=lines.append), folder, lines


def test_every_row_is_measured_on_all_people(study: tuple[StudyReport, Path, list[str]]) -> None:
    report, folder, _ = study
    assert [row.key for row in report.rows] == [
        "lowres_small-32-alone",
        "lowres_small-32-longer",
        "lowres_small-32-taught-tutor",
        "tutor-32",
        "tutor-full",
    ]
    for row in report.rows:
        assert row.limbs is not None and row.all_joints is not None and row.limbs.people == 12
        assert row.limbs.low <= row.limbs.value <= row.limbs.high
    for row in report.rows[:3]:
        metrics = json.loads((folder / f"{row.key}-0/metrics.json").read_text())
        assert row.all_joints is not None
        assert row.all_joints.value == pytest.approx(metrics["epochs"][-1]["pckh"])
        assert row.seconds == pytest.approx(sum(epoch["seconds"] for epoch in metrics["epochs"]))
        assert row.parameters and row.macs and not row.missing


def test_the_longer_one_takes_as_long_as_the_taught_one(study: tuple[StudyReport, Path, list[str]]) -> None:
    report, folder, _ = study
    alone, longer, taught = report.rows[:3]
    expected = max(1, round(taught.seconds / alone.seconds))
    assert longer.epochs == (expected,)
    request = json.loads((folder / "lowres_small-32-longer-0/request.json").read_text())
    assert request["later"] == ["--epochs", str(expected), "--evaluate_every", str(expected)]


def test_views_and_outputs_are_made_once(study: tuple[StudyReport, Path, list[str]]) -> None:
    _, folder, _ = study
    found = sorted(path.name.split("-")[0] for path in (folder / "views").iterdir())
    assert found == ["keypoints", "views"]


def test_a_folder_of_another_plan_is_not_reported_as_its(
    study: tuple[StudyReport, Path, list[str]], drawn_people: Path, teacher: str
) -> None:
    _, folder, _ = study
    before = (folder / "results.md").read_text()
    other = plan_of(drawn_people, teacher, views=2)
    with pytest.raises(InputError, match=r"expected --data\.views 1 as in .*, got --data\.views 2"):
        lsp_study(other, str(folder), train=False)
    with pytest.raises(InputError, match=r"expected --data\.views 1 as in .*, got --data\.views 2"):
        plan_text(other, str(folder))
    with pytest.raises(InputError, match="jobs: expected a positive number, got 0"):
        lsp_study(plan_of(drawn_people, teacher), str(folder), train=False, jobs=0)
    assert (folder / "results.md").read_text() == before


def test_people_without_limbs_are_refused_before_the_training(
    drawn_people: Path, teacher: str, tmp_path: Path
) -> None:
    shutil.copytree(drawn_people, tmp_path / "people")
    file = tmp_path / "people/val/annotations.json"
    content = json.loads(file.read_text())
    limbs = [place for place, name in enumerate(content["categories"][0]["keypoints"]) if "_" in name]
    for person in content["annotations"]:
        for place in limbs:
            person["keypoints"][3 * place + 2] = 0
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"data\.val: expected people to measure the joints of the limbs on"):
        lsp_study(plan_of(tmp_path / "people", teacher), str(tmp_path / "study"))
    assert not list(tmp_path.glob("study/*"))


def test_a_checkpoint_is_asked_about_views(drawn_people: Path, tmp_path: Path, teacher: str) -> None:
    own = tmp_path / "own.safetensors"
    own.touch()
    plans = [plan_of(drawn_people, file, rows=("taught",)) for file in (teacher, str(own))]
    foreign, checkpoint = (plan.runs(10, MPII_JOINTS)[0].command for plan in plans)
    place = foreign.index("--teacher_options.ask")
    assert foreign[place + 1] == "people" and "--teacher_options.ask" not in checkpoint


def test_the_report_says_what_was_measured(study: tuple[StudyReport, Path, list[str]]) -> None:
    report, folder, _ = study
    text = (folder / "results.md").read_text()
    for row in report.rows:
        assert row.limbs is not None
        assert f"| {row.title} | {row.limbs.value:.1f} [" in text
    for title in ("tutor beside labels, equal steps", "tutor beside labels, equal time", "off the shelf"):
        assert title in text
    first = next(one for one in report.comparisons if one.title.endswith("equal steps"))
    assert report.rows[2].limbs is not None and report.rows[0].limbs is not None
    assert first.limbs.value == pytest.approx(report.rows[2].limbs.value - report.rows[0].limbs.value)
    assert "Nothing is missing" in text
    assert cv2.imread(str(folder / "results.png")).std() > 10
    written = json.loads((folder / "results.json").read_text())
    assert [row["key"] for row in written["rows"]] == [row.key for row in report.rows]
    assert all(run["finished"] and run["command"].startswith("cdkd ") for run in written["runs"])


def test_a_second_call_adds_what_is_new(
    study: tuple[StudyReport, Path, list[str]], plan: LspStudy, drawn_people: Path, teacher: str
) -> None:
    """Of more seeds only those that are there are reported, and missing ones are named; nothing is measured twice."""
    _, folder, _ = study
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".npz", ".pt")}
    lines: list[str] = []
    more = plan_of(drawn_people, teacher, seeds=(0, 1))
    report = lsp_study(more, str(folder), train=False, report=lines.append)
    assert [row.missing for row in report.rows[:3]] == [(1,)] * 3
    text = (folder / "results.md").read_text()
    assert "## Missing" in text and "32×32, labels + tutor: not finished: seed 1" in text
    assert len(lines) == 1
    assert files == {path: path.stat().st_mtime_ns for path in files}
    lsp_study(plan, str(folder), report=lines.append)
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_the_list_has_commands_and_an_estimate(
    study: tuple[StudyReport, Path, list[str]],
    drawn_people: Path,
    teacher: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, folder, _ = study
    words = [
        "study",
        "lsp",
        "--data.root",
        str(drawn_people),
        "--teacher",
        teacher,
        "--rows",
        *ROWS,
        "--sizes",
        "32",
    ]
    words += ["--models", "lowres_small", "--epochs", "1", "--views", "1", "--seeds", "0", "1", "--list"]
    assert main([*words, "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    command = "  cdkd train --recipe lsp_student --model.name lowres_small --model.input_size '[32,32]'"
    assert f"{command} --data.root {drawn_people} " in printed
    assert "lowres_small-32-taught-tutor-0: finished" in printed
    assert "lowres_small-32-longer-1: missing" in printed and "--epochs AS_LONG_AS_TAUGHT" in printed
    assert re.search(r"6 runs, 3 finished; about .* with 1 at a time \(as fast as the finished ones", printed)


def test_all_students_take_as_many_steps(drawn_people: Path, teacher: str) -> None:
    plan = plan_of(drawn_people, teacher, rows=(), seeds=(0, 1, 2), sizes=(32, 64), epochs=10)
    runs = {run.name: run for run in plan.runs(100, MPII_JOINTS)}
    assert len(runs) == 6 * 3 * 2
    words = {name: " ".join(run.command) for name, run in runs.items()}
    assert "--data.labelled_fraction 0.25 --epochs 40 " in words["lowres_small-32-quarter-1"]
    assert "--data.labelled_fraction 0.25 --epochs 10 " in words["lowres_small-32-quarter_taught-tutor-1"]
    assert "--data.labelled_fraction 0.0 --epochs 10 " in words["lowres_small-64-unlabelled-tutor-2"]
    assert {run.work for run in runs.values() if run.size == 32} == {runs["lowres_small-32-alone-0"].work}
    assert runs["lowres_small-64-alone-0"].work > 3 * runs["lowres_small-32-alone-0"].work
    waits = {f"lowres_small-32-{row}-{seed}" for row in ("alone", "taught-tutor") for seed in (0, 1, 2)}
    assert set(runs["lowres_small-32-longer-1"].after) == waits


def test_a_file_of_options_is_for_those_whom_it_concerns(
    drawn_people: Path, teacher: str, tmp_path: Path
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("ema_decay: 0.99\ndata: {camera_faults: 0.2}\nteacher_options: {turns: true}\n")
    plan = plan_of(drawn_people, teacher, options=str(file))
    commands = {run.name.split("-")[2]: run.command for run in plan.runs(10, MPII_JOINTS)}
    assert json.loads(commands["alone"][4]) == {"ema_decay": 0.99, "data": {"camera_faults": 0.2}}
    taught = commands["taught"]
    place = taught.index("--config")
    assert json.loads(taught[place + 1])["teacher_options"] == {"turns": True}
    assert taught.index("--teacher_options.flip") < place < taught.index("--seed")
    file.write_text("seed: 3\ndata: {views: 2}\n")
    with pytest.raises(InputError, match=r"options.*got seed, data.views"):
        plan_of(drawn_people, teacher, options=str(file))
    file.write_text("optimizr: {learning_rate: 0.1}\nema_decay: 0.9\n")
    with pytest.raises(InputError, match=r"options.yaml: expected options of `cdkd distill`, got optimizr"):
        plan_of(drawn_people, teacher, options=str(file)).runs(16, MPII_JOINTS)
    file.write_text("optimizer: {learning_rat: 0.1}\ncca: {weight: 3}\nteacher_options: {asks: views}\n")
    with pytest.raises(InputError, match=r"got optimizer\.learning_rat, teacher_options\.asks"):
        plan_of(drawn_people, teacher, options=str(file)).runs(16, MPII_JOINTS)
    file.write_text("data: 3\n")
    with pytest.raises(InputError, match=r"options.yaml: data: expected a mapping of options, got 3"):
        plan_of(drawn_people, teacher, options=str(file))


def test_a_study_of_which_nothing_was_measured_is_told(
    drawn_people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "study",
        "lsp",
        "--data.root",
        str(drawn_people),
        "--rows",
        "alone",
        "--seeds",
        "0",
        "--sizes",
        "32",
    ]
    assert main([*words, "--output", str(tmp_path / "study"), "--report_only"]) == 0
    told = (tmp_path / "study/results.md").read_text()
    assert "not finished: seed 0" in told and "results.png" not in told
    assert not (tmp_path / "study/results.png").exists()
    assert main([*words, "--output", str(tmp_path / "study"), "--list", "--jobs", "0"]) == 2
    assert "jobs: expected a positive number, got 0" in capsys.readouterr().err


def test_mistakes_are_named(drawn_people: Path, teacher: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"teacher: expected a file .* for longer, taught"):
        plan_of(drawn_people, teacher, teachers=())
    with pytest.raises(InputError, match="rows: expected one of 'alone'"):
        plan_of(drawn_people, teacher, rows=("best",))
    with pytest.raises(
        InputError, match="rows: expected alone and taught beside longer, got longer without taught"
    ):
        plan_of(drawn_people, teacher, rows=("alone", "longer"))
    with pytest.raises(InputError, match="teacher: expected an existing file"):
        plan_of(drawn_people, teacher, teachers=("none.onnx",))
    with pytest.raises(InputError, match="teacher: expected files of different names"):
        plan_of(drawn_people, teacher, teachers=(teacher, teacher))
    with pytest.raises(InputError, match="seeds: expected at least one, each once"):
        plan_of(drawn_people, teacher, seeds=(0, 0))
    with pytest.raises(InputError, match="models: expected one of"):
        plan_of(drawn_people, teacher, models=("small",))
    with pytest.raises(InputError, match="shelf: expected an existing file"):
        lsp_study(plan_of(drawn_people, teacher), str(tmp_path), shelf=["none.onnx"])
    with pytest.raises(InputError, match="precision: expected one of 'no', 'bf16', 'fp16', got 'fp8'"):
        plan_of(drawn_people, teacher, precision="fp8")
    # before anything is trained
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.onnx: expected an ONNX file that onnxruntime can run"):
        lsp_study(plan_of(drawn_people, teacher), str(tmp_path), shelf=[str(tmp_path / "broken.onnx")])
    assert not list(tmp_path.glob("*/log.txt"))
    with pytest.raises(InputError, match=r"data\.root: expected an existing folder"):
        plan_text(plan_of(tmp_path / "none", teacher), str(tmp_path))
    assert main(["study", "coco"]) == 2 and main(["study", "lsp"]) == 2


_CALL = """
import sys
from cdkd_ext.studies import StudyRun, run_study
run = StudyRun(name="run", row="row", seed=0, command=tuple(sys.argv[2:]))
run_study([run], sys.argv[1])
"""


def test_a_training_goes_on_where_the_study_was_stopped(drawn_people: Path, tmp_path: Path) -> None:
    words = ("train", "--data.root", str(drawn_people), "--data.workers", "0", "--model.name", "lowres_small")
    words += ("--batch_size", "16", "--epochs", "3", "--cpu", "true")
    call = [sys.executable, "-c", _CALL, str(tmp_path), *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # elsewhere, because a checkout would hide the installed package
    study = subprocess.Popen(
        call, stdout=subprocess.PIPE, text=True, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    assert study.stdout is not None and study.stdout.readline() == "run: starts\n"
    metrics = tmp_path / "run/metrics.json"
    while not metrics.exists():
        with pytest.raises(subprocess.TimeoutExpired):
            study.wait(0.05)
    study.send_signal(signal.SIGINT)
    assert study.wait(120) != 0
    assert "terminated in step" in (tmp_path / "run/log.txt").read_text()
    lines: list[str] = []
    run = StudyRun(name="run", row="row", seed=0, command=words)
    (report,) = run_study([run], tmp_path, report=lines.append)
    assert report.state == "finished" and lines[0] == "run: goes on"
    assert [epoch["epoch"] for epoch in json.loads(metrics.read_text())["epochs"]] == [1, 2, 3]
