"""What a training says while it goes on, where nobody looks at a terminal."""

from __future__ import annotations

import pytest

from cdkd_ext.training.progress import TrainingDisplay, footage_progress


def test_footage_is_told_of_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with footage_progress(clock=lambda: now) as progress:
        for done in range(1, 7):
            now += 25
            progress("asking the teacher", 100 * done, 28980)
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["asking the teacher: 300 of 28980", "asking the teacher: 600 of 28980"]
    assert not shown.out


def test_lines_of_epochs_say_average_precision_in_percent(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"total": 0.5, "AP": 0.7125, "AR_L": 0.8, "people": 6352}
    with TrainingDisplay(10) as display:
        display.epoch(0, 2, 5, record)
        display.epoch(1, 2, 10, {"pckh": 71.25})
    first, second = capsys.readouterr().out.splitlines()
    assert "total 0.5  AP 71.25  AR_L 80  people 6352" in first
    assert "pckh 71.25" in second
    assert record["AP"] == 0.7125
