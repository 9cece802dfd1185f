"""The first loss that is not finite is named, whenever it is looked for."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.training.finite import LOOK_EVERY, FiniteWatch


def losses(device="cpu", **changes):
    values = {"total": 3.0, "simcc": 1.0, "sape": 2.0} | changes
    return {name: torch.full((), value, device=device) for name, value in values.items()}


def test_on_the_cpu_the_step_itself_is_told():
    watch = FiniteWatch()
    assert watch.add(0, losses()) is None
    assert watch.add(1, losses(total=float("nan"), sape=float("nan"))) == "step 1: sape became nan"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"total": float("inf")}, "total became inf"),
        ({"total": float("-inf"), "simcc": float("-inf")}, "simcc became -inf"),
        ({"total": float("nan"), "simcc": float("inf"), "sape": float("nan")}, "simcc, sape became inf"),
    ],
)
def test_the_terms_and_the_first_value_are_named(changes, words):
    assert FiniteWatch().add(7, losses(**changes)) == f"step 7: {words}"


def test_the_first_bad_step_is_kept_through_later_ones():
    watch = FiniteWatch()
    watch.add(0, losses())
    watch.add(1, losses(simcc=float("inf")))
    watch.add(2, losses(total=float("nan"), sape=float("nan")))
    assert watch.add(3, losses()) == "step 1: simcc became inf"
    assert watch.report() == "step 1: simcc became inf"


def test_nothing_was_watched():
    assert FiniteWatch().report() is None


def test_on_a_gpu_it_does_not_look_in_every_step(no_host_reads):
    watch = FiniteWatch()
    with no_host_reads():
        for step in range(LOOK_EVERY - 1):
            assert watch.add(step, losses("meta")) is None
    # the device has no values to look at: looking fails
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), no_host_reads():
        watch.add(LOOK_EVERY, losses("meta"))
