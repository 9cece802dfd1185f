"""The benchmarks as a user runs them, at their smallest."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.harness import limits, memory, run
from bench.harness.agreement import DisagreementError
from bench.harness.benchmark import Bench, names
from bench.harness.case import OURS, Case, Setup

OPS = [name for name in names() if name != "step"]


def options(**changed):
    parser = argparse.ArgumentParser()
    run.add_options(parser)
    return argparse.Namespace(**{**vars(parser.parse_args(["--quick", "--no-memory"])), **changed})


@pytest.mark.long
@pytest.mark.parametrize("name", OPS)
def test_one_benchmark(python, tmp_path, name):
    file = tmp_path / "samples.json"
    text = python(
        "-m", f"bench.{name}", "--quick", "--no-compile", "--json", file, "--plot", tmp_path / "growth.png"
    )
    found = json.loads(file.read_text())
    assert found["machine"]["torch"] == torch.__version__
    (bench,) = found["benches"]
    assert bench["name"] == name
    assert {(case["dtype"], case["threads"]) for case in bench["cases"]} >= {("float32", 2), ("bfloat16", 1)}
    for case in bench["cases"]:
        assert case["title"] in text
        assert {OURS, "eager"} <= set(case["samples"])
        assert set(case["differences"]) == set(case["samples"])
        for samples in (*case["samples"].values(), *case["floor"].values(), *case["context"].values()):
            assert len(samples) == 3
            assert min(samples) > 0
        assert bool(case["floor"]) == (limits.missing() is None)
        if case["memory"] and not memory.missing():
            assert set(case["extra_bytes"]) == set(case["samples"])
            assert min(case["extra_bytes"].values()) > 0
    assert (tmp_path / "growth.png").stat().st_size > 5000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growth.png", "samples.json"]


@pytest.mark.long
def test_several_with_torch_compile_started_without_a_wait_policy(python, tmp_path):
    file = tmp_path / "samples.json"
    arguments = ["--quick", "--no-memory", "--only", "float32, forward", "--json", file]
    python("-m", "bench", "simcc_kl", "simcc_decode", *arguments, OMP_WAIT_POLICY="")
    benches = json.loads(file.read_text())["benches"]
    assert [bench["name"] for bench in benches] == ["simcc_kl", "simcc_decode"]
    for bench in benches:
        assert {case["dtype"] for case in bench["cases"]} == {"float32"}
        assert any("torch.compile" in case["samples"] for case in bench["cases"])


def test_a_checkout_does_not_hide_the_installed_package(python):
    from bench import CHECKOUT

    found = python("-c", "import bench, cdkd_ext.ops; print(cdkd_ext.__file__)").strip()
    assert Path(found).parent != CHECKOUT / "cdkd_ext"


def make(**calls):
    def prepare(case, device):
        return Setup(calls=calls, tolerance=1e-3, input_bytes=4)

    cases = [Case("paper", {"batch": 1})]
    return Bench("made_up", "made up", cases=cases, quick=cases, prepare=prepare)


def test_competitors_that_compute_something_else_are_not_timed():
    bench = make(cdkd_ext=lambda: torch.tensor([1.0]), eager=lambda: torch.tensor([1.01]))
    with pytest.raises(
        DisagreementError, match=r"made_up, batch 1, .* cdkd_ext differs from eager by 0\.0099"
    ):
        run.measure(bench, options())


def test_random_inputs_are_the_same_in_every_run():
    drawn = []

    def prepare(case, device):
        drawn.append(torch.rand(1).item())
        return Setup({OURS: lambda: torch.ones(1), "eager": lambda: torch.ones(1)}, 1e-3, 4)

    for _ in range(2):
        run.measure(replace(make(), prepare=prepare), options())
    assert drawn[0] == drawn[1]
