from __future__ import annotations

import gc

import pytest
import torch

from bench.harness import timing
from bench.harness.timing import Effort, interleave

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A timer under which one repeat of a loop takes as long as the loop says."""
    monkeypatch.setattr(timing, "_time_on_cpu", lambda loop, repeats: loop(repeats))


def log_of(seconds, name, log):
    def loop(repeats):
        log.append((name, repeats))
        return seconds * repeats

    return loop


def test_samples_are_seconds_of_one_repeat(clock):
    loops = {"short": log_of(1e-6, "short", []), "long": log_of(2.0, "long", [])}
    samples = interleave(loops, Effort(seconds=0, fewest=3, most=5), CPU)
    assert samples == {"short": pytest.approx([1e-6] * 3), "long": [2.0] * 3}


def test_short_loops_repeat_until_a_sample_is_long_enough(clock):
    log = []
    interleave({"short": log_of(3e-7, "short", log), "long": log_of(1.0, "long", log)}, Effort(0, 1, 1), CPU)
    measured = dict(log)  # the last of each
    assert measured["long"] == 1
    assert timing.LONG_ENOUGH <= measured["short"] * 3e-7 < 2 * timing.LONG_ENOUGH


def test_what_takes_no_time_ends(clock):
    assert interleave({"nothing": log_of(0.0, "nothing", [])}, Effort(0, 2, 2), CPU) == {
        "nothing": [0.0, 0.0]
    }


def test_each_round_takes_each_loop_once_in_changing_order(clock):
    log = []
    loops = {name: log_of(1.0, name, log) for name in "abc"}
    interleave(loops, Effort(seconds=0, fewest=20, most=20), CPU)
    rounds = ["".join(name for name, _ in log[i : i + 3]) for i in range(len(log) - 60, len(log), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3


def test_rounds_end_at_the_most_and_with_the_garbage_collector_back_on(clock):
    seen = []

    def loop(repeats):
        seen.append(gc.isenabled())
        return 1.0

    samples = interleave({"a": loop}, Effort(seconds=1e9, fewest=1, most=4), CPU)
    assert len(samples["a"]) == 4
    assert not any(seen[-4:])
    assert gc.isenabled()


def test_real_clock():
    samples = interleave({"add": lambda repeats: sum(range(repeats))}, Effort(0, 2, 2), CPU)
    assert all(0 < sample < 1 for sample in samples["add"])
