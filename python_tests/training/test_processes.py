"""Two processes on the CPU: what is averaged between them, and what is each one's own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("two_processes.py")
spec = importlib.util.spec_from_file_location("two_processes", PROGRAM)
two_processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(two_processes)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both processes kept."""
    folder = tmp_path_factory.mktemp("processes")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(PROGRAM), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_gradients_are_those_of_one_process_with_the_joined_batch(found):
    """Of every loss's mean over the batch; in evaluation mode, because batch statistics are each process's own."""
    task = two_processes.make_task().eval()
    two_processes.step(task, two_processes.draw_batch()).backward()
    expected = {name: value.grad for name, value in task.named_parameters() if value.grad is not None}
    assert {"student.conv1.weight", "loss.sape.projector_weight", "loss.tau.theta"} <= expected.keys()
    for process in found:
        assert process["gradients"].keys() == expected.keys()
        for name, value in expected.items():
            difference = (process["gradients"][name] - value).norm()
            assert difference <= 1e-4 * value.norm() + 1e-9, name


def test_batch_statistics_are_each_process_s_own(found):
    halves = [[value[half] for value in two_processes.draw_batch()] for half in (slice(0, 3), slice(3, 6))]
    for process, half in zip(found, halves, strict=True):
        task = two_processes.make_task().train()
        two_processes.step(task, half)
        for name, value in task.named_buffers():
            torch.testing.assert_close(process["buffers"][name], value, rtol=1e-4, atol=1e-5, msg=name)
    name = "student.bn1.running_mean"
    assert not torch.allclose(found[0]["buffers"][name], found[1]["buffers"][name], rtol=1e-3)
