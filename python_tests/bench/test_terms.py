"""What the terms of a step cost, from the command."""

from __future__ import annotations

import sys

import pytest

from bench.training import terms


@pytest.mark.parametrize("head", ["heatmap", "simcc"])
def test_every_way_of_learning_is_timed(
    head: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "hrnet_w8_small", "--head", head, "--batch", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["terms", *words])
    terms.main()
    first, names, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith(f"hrnet_w8_small, {head}, 32x32, batches of 2; torch ")
    assert names.split() == ["learnt", "from", "ms/step", "times", "labels", "alone"]
    assert len(rows) == 5 and rows[0].split()[0] == "labels" and rows[0].split()[-1] == "1.00"
    assert all(float(row.split()[-2]) > 0 for row in rows)
