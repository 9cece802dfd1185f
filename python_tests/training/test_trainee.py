"""Which checkpoint is the best."""

from __future__ import annotations

import math
from types import SimpleNamespace

from cdkd_ext.training.trainee import Trainee


def test_a_metric_that_is_no_number_is_never_the_best() -> None:
    run = SimpleNamespace(metric="pckh", best=None)
    values = [math.nan, 50.0, 40.0, math.nan, 50.0, 60.0, math.inf]
    best = [Trainee._is_best(run, {"pckh": value}) for value in values]  # type: ignore[arg-type]
    assert best == [False, True, False, False, False, True, False]
    assert run.best == 60.0
    assert not Trainee._is_best(run, {"AP": 70.0})  # type: ignore[arg-type]
