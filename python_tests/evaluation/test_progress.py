"""What an evaluation says while it goes on, where nobody looks at a terminal."""

from __future__ import annotations

import pytest

from cdkd_ext.evaluation.progress import people_progress


def test_people_are_told_of_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with people_progress(700, 2, clock=lambda: now) as progress:
        for done in (100, 200, 400):
            now += 30
            progress(done)
        now += 30
        progress(400)
    # the other process does about as many
    assert capsys.readouterr().err.splitlines() == [
        "evaluating people: 400 of 700",
        "evaluating people: 700 of 700",
    ]
