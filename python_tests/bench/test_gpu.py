"""`python -m bench.gpu` without a GPU: the same script, dry."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.gpu import __main__ as gpu
from bench.gpu import build, environment, sanitizers, step, tests
from bench.gpu.cases import OPS, TINY, inputs, least_bytes, run
from bench.gpu.report import CUT_OFF, FAILED, OK, SKIPPED, Findings, read_result
from bench.harness.agreement import difference


@pytest.mark.long
def test_a_dry_run_of_everything(python, tmp_path):
    text = python("-m", "bench.gpu", "--dry-run", "--output", tmp_path)
    results = {result["stage"]: result for result in json.loads((tmp_path / "report.json").read_text())}
    assert list(results) == [stage.name for stage in gpu.STAGES]
    assert {result["status"] for result in results.values()} == {OK}
    page = (tmp_path / "report.md").read_text()
    assert "nothing here ran on a GPU" in page
    for stage in gpu.STAGES:
        assert stage.title in page
        assert f"{stage.name}: ok" in text
    ops = next(table for table in results["ops"]["tables"] if table["title"] == "Ops")
    assert {row[0].split(",")[0] for row in ops["rows"]} == {op.name for op in OPS}
    samples = json.loads((tmp_path / "ops.json").read_text())["samples"]
    assert all(min(times) > 0 for sample in samples for times in sample["samples"].values())
    passes = results["sanitizers"]["tables"][0]["rows"]
    assert any("projector_cosine backward" in row[0] for row in passes)


def test_one_stage_alone(python, tmp_path):
    text = python("-m", "bench.gpu", "--dry-run", "--stage", "environment", "--output", tmp_path)
    assert [result["stage"] for result in json.loads((tmp_path / "report.json").read_text())] == [
        "environment"
    ]
    assert "scikit-build-core" in text


@pytest.fixture
def fake_stages(monkeypatch, tmp_path):
    """Replaces the stages by files: what each does is given as source."""

    def replace(limit=30.0, **sources):
        folder = tmp_path / "modules"
        folder.mkdir()
        stages = []
        for name, source in sources.items():
            head = "from pathlib import Path\nimport sys\n"
            (folder / f"fake_{name}.py").write_text(head + source)
            needs = tuple(stage.name for stage in stages if stage.name == "first")
            stages.append(gpu.Stage(name, name, limit, needs, module=f"fake_{name}"))
        monkeypatch.setattr(gpu, "STAGES", tuple(stages))
        monkeypatch.setenv("PYTHONPATH", str(folder))
        return list(sources)

    return replace


WRITES = """
import json
folder = Path(sys.argv[sys.argv.index("--output") + 1])
(folder / (Path(__file__).stem.removeprefix("fake_") + ".json")).write_text(json.dumps({"summary": "three of five"}))
"""


def test_a_stage_that_hangs_is_cut_off_and_its_findings_are_kept(fake_stages, tmp_path):
    chosen = fake_stages(
        limit=2.0, first=WRITES, hangs=WRITES + "import threading\nthreading.Event().wait()\n"
    )
    results = gpu.run_stages(chosen, tmp_path, 60.0, dry_run=False)
    assert [result.status for result in results] == [OK, CUT_OFF]
    assert results[1].summary == "three of five"
    assert "| hangs | cut off |" in (tmp_path / "report.md").read_text()


def test_a_stage_that_fails_says_why_and_what_needs_it_is_skipped(fake_stages, tmp_path):
    chosen = fake_stages(first="sys.exit('no compiler')\n", second=WRITES)
    first, second = gpu.run_stages(chosen, tmp_path, 60.0, dry_run=False)
    assert (first.status, first.summary) == (FAILED, "no compiler")
    assert (second.status, second.summary) == (SKIPPED, "needs first")


def test_a_stage_that_finds_nothing_has_failed(fake_stages, tmp_path):
    (result,) = gpu.run_stages(fake_stages(first="print('hello')\n"), tmp_path, 60.0, dry_run=False)
    assert (result.status, result.summary) == (FAILED, "hello")


def test_no_stage_begins_when_the_time_is_over(fake_stages, tmp_path):
    (result,) = gpu.run_stages(fake_stages(first=WRITES), tmp_path, 3.0, dry_run=False)
    assert (result.status, result.summary) == (SKIPPED, "no time left of 3 s")


def test_an_old_result_is_not_taken_for_a_new_one(fake_stages, tmp_path):
    chosen = fake_stages(first="sys.exit('broken')\n")
    (tmp_path / "first.json").write_text('{"summary": "old"}')
    (result,) = gpu.run_stages(chosen, tmp_path, 60.0, dry_run=False)
    assert result.summary == "broken"


def test_the_stages_fit_into_five_minutes():
    assert gpu.ALLOWED <= 300
    assert sum(stage.limit for stage in gpu.STAGES[:-1]) < gpu.ALLOWED
    assert next(stage.limit for stage in gpu.STAGES if stage.name == "build") <= 90


def test_the_build_is_for_one_architecture_and_asks_no_network():
    assert build.cmake_arguments(9, 0) == "-DCDKD_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90-real"
    arguments = build.pip_arguments("/somewhere")
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(arguments)


@pytest.mark.parametrize(
    ("found", "oldest", "enough"),
    [
        ("2.11.0+cu130", "2.10", True),
        ("2.9.1", "2.10", False),
        ("3.1rc1", "3.1", True),
        (None, "", False),
        ("1", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(found, oldest, enough):
    assert environment.new_enough(found, oldest) == enough


def test_every_file_with_tests_for_a_gpu_is_run():
    chosen = {Path(argument).name for argument in tests.pytest_arguments() if argument.endswith(".py")}
    assert {"test_gpu.py", "test_no_waiting.py", "test_captured.py", "test_device_crops.py"} <= chosen
    assert "test_coco.py" not in chosen


def test_what_is_missing_is_told_with_the_way_to_bring_it():
    text = environment.how_to_bring(["pybind11", "triton"])
    assert "pip download" in text and "pybind11 triton" in text and "--no-index" in text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0),
        ("========= ERROR SUMMARY: 3 errors", 3),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)", 2),
    ],
)
def test_a_sanitizers_summary_is_counted(text, number):
    (found,) = sanitizers._COUNT.findall(text)
    assert int(found[0] or found[1]) == number


def test_overlapping_kernels_count_once():
    assert step.covered([(0, 4), (2, 6), (8, 10)]) == pytest.approx(0.8)
    assert step.covered([(0, 10), (2, 3)]) == pytest.approx(1.0)
    assert step.covered([]) == 0


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_least_bytes_are_inputs_results_and_gradients(op):
    drawn = inputs(op, {**TINY, "batch": 2}, torch.float32, torch.device("cpu"), seed=0)
    results = run(op.ours, drawn)
    assert len(results) == (1 + len(drawn.learn) if op.learns else 2)
    moved = sum(tensor.nbytes for tensor in (*drawn.all, *drawn.learn)) + sum(
        result.nbytes for result in results[: 1 if op.learns else 2]
    )
    assert least_bytes(drawn, results) == moved


def test_input_sets_differ():
    draws = [
        inputs(OPS[0], {**TINY, "batch": 2}, torch.float32, torch.device("cpu"), seed) for seed in (0, 1, 0)
    ]
    assert difference(draws[0].all, draws[2].all) == 0
    assert difference(draws[0].all, draws[1].all) > 0.1


def test_findings_are_written_as_they_come(tmp_path):
    findings = Findings(tmp_path / "stage.json")
    findings.table("Numbers", ["a"])["rows"].append(["1"])
    findings.write("one")
    found = read_result(tmp_path / "stage.json")
    assert found["summary"] == "one"
    assert found["tables"] == [{"title": "Numbers", "columns": ["a"], "rows": [["1"]]}]
    assert [path.name for path in tmp_path.iterdir()] == ["stage.json"]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_triton_kernel_agrees_in_tritons_interpreter(python):
    code = """
import torch
from bench.gpu.triton_cca_kl import cca_kl
from cdkd_ext.ops import reference
for classes, bins in ((192, 768), (12, 60), (64, 512)):
    student, teacher = torch.randn(3, 5, classes, requires_grad=True), 3 * torch.randn(3, 5, bins)
    found, expected = cca_kl(student, teacher), reference.cca_kl(student, teacher, 1.0)
    weights = torch.randn(3, 5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(x, student, weights)[0] for x in (found, expected)))
"""
    python("-c", code, TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_captured_pass_computes_what_a_plain_one_does():
    from bench.gpu import clock

    x, out = torch.randn(100, device="cuda"), torch.zeros(100, device="cuda")
    replay = clock.captured(lambda: torch.mul(x, 2, out=out))
    out.zero_()
    replay()
    torch.testing.assert_close(out, 2 * x)


def test_the_sanitizers_program_runs_every_op():
    done = subprocess.run(
        [sys.executable, "-c", "import bench.gpu.exercise as e; e.main()"],
        cwd=gpu.CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 2 * len(OPS)


def test_a_case_that_fails_does_not_end_the_others(monkeypatch, tmp_path):
    from bench.gpu import ops as stage

    def fail(*inputs):
        raise RuntimeError("an illegal\nmemory access")

    broken = replace(OPS[0], ours=fail)
    monkeypatch.setattr(
        stage, "tiny_plans", lambda: [stage.Plan(op, 1, torch.float32) for op in (broken, OPS[2])]
    )
    monkeypatch.setattr(sys, "argv", ["ops", "--output", str(tmp_path), "--dry-run"])
    with pytest.raises(SystemExit) as stopped:
        stage.main()
    assert stopped.value.code
    found = read_result(tmp_path / "ops.json")
    assert found["summary"] == "2 of 2 cases, 1 wrong or failed"
    assert "cca_kl, B 1, float32: RuntimeError: an illegal memory access" in found["notes"]
    assert [row[0] for row in found["tables"][0]["rows"]] == ["simcc_decode, B 1, float32"]


def test_a_wrong_result_is_printed_as_such_and_fails_the_stage(monkeypatch, tmp_path):
    from bench.gpu import ops as stage

    wrong = replace(OPS[0], ours=lambda *inputs: 1.01 * OPS[0].ours(*inputs))
    monkeypatch.setattr(stage, "tiny_plans", lambda: [stage.Plan(wrong, 1, torch.float32)])
    monkeypatch.setattr(sys, "argv", ["ops", "--output", str(tmp_path), "--dry-run"])
    with pytest.raises(SystemExit) as stopped:
        stage.main()
    assert stopped.value.code
    (row,) = read_result(tmp_path / "ops.json")["tables"][0]["rows"]
    assert row[stage.COLUMNS.index("worst difference")].endswith("WRONG")
