"""A short part of the long run of random calls, on the installed operators."""

from __future__ import annotations

import judge
import ops
import pytest
import torch
from op_calls import Call
from planted import BUGS
from sanitized import CHECKOUT

from cdkd_ext import ops as public


@pytest.mark.long
def test_random_calls() -> None:
    counts = ops.run(seed=7, first=0, calls=600)
    assert counts["calls"] == 600
    for op in public.__all__:
        assert counts[f"{op} answered"] > 20 and counts[f"{op} refused"] > 5 and counts[f"{op} compared"] > 0
    assert counts["raw called"] > 50


def test_threads_get_the_same_bits() -> None:
    assert ops.run(seed=8, first=0, calls=300, threads=3)["calls"] == 300


def call(**arguments: object) -> Call:
    logits = {"student_logits": torch.zeros(2, 3), "teacher_logits": torch.zeros(2, 6), "tau": 1.0}
    return Call("cca_kl", {**logits, **arguments})


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (torch.full((2,), torch.nan), "a NaN from a row of ordinary numbers"),
        (torch.zeros(2, dtype=torch.float64), "expected .* torch.float32"),
        (torch.zeros(3), r"result \(3,\)"),
        (torch.ones(2), "differs from the reference"),
    ],
)
def test_a_wrong_answer_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, answer: torch.Tensor, found: str
) -> None:
    monkeypatch.setattr(public, "cca_kl", lambda **_: answer)
    with pytest.raises(judge.FindingError, match=found):
        judge.judge(call(), True, ops.Counter())


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), TypeError("unsupported operand")])
def test_a_refusal_without_a_name_is_a_finding(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(public, "cca_kl", refuse)
    spoiled = call(tau=-1.0)
    spoiled.spoiled, spoiled.must_fail = "tau", True
    with pytest.raises(judge.FindingError, match="refused without its name"):
        judge.judge(spoiled, True, ops.Counter())


def test_an_accepted_mistake_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "cca_kl", lambda **_: torch.zeros(2))
    spoiled = call(tau=-1.0)
    spoiled.spoiled, spoiled.must_fail = "tau", True
    with pytest.raises(judge.FindingError, match="tau was accepted"):
        judge.judge(spoiled, True, ops.Counter())


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_fits_into_the_sources(bug: object) -> None:
    """`make fuzz` compiles them; here they only have to keep up with the sources."""
    assert (CHECKOUT / "csrc" / bug.file).read_text().count(bug.old) == 1
