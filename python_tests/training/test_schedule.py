"""Learning rates by hand."""

from __future__ import annotations

import math

import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.training.config import OptimizerConfig, TrainingConfig
from cdkd_ext.training.schedule import learning_rate


def test_cosine_falls_from_the_highest_rate_to_zero():
    config = OptimizerConfig(learning_rate=2.0, schedule="cosine", warmup=0.0)
    assert learning_rate(config, 0, 10, 4) == 2.0
    assert learning_rate(config, 20, 10, 4) == pytest.approx(1.0)
    assert learning_rate(config, 10, 10, 4) == pytest.approx(1 + math.cos(math.pi / 4))
    assert 0 < learning_rate(config, 39, 10, 4) < 0.01


def test_warmup_rises_linearly_to_the_highest_rate():
    config = OptimizerConfig(learning_rate=1.0, schedule="constant", warmup=1.0)
    assert [learning_rate(config, step, 4, 2) for step in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    )


def test_steps_multiply_by_a_tenth_at_each_milestone():
    config = OptimizerConfig(learning_rate=1.0, schedule="step", milestones=[170, 200], warmup=0.0)
    rates = [learning_rate(config, 10 * epoch, 10, 210) for epoch in (0, 169, 170, 199, 200, 209)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_factor_of_a_milestone_can_be_another():
    config = OptimizerConfig(
        learning_rate=1.0, schedule="step", milestones=[2], milestone_factor=0.5, warmup=0.0
    )
    assert [learning_rate(config, step, 1, 4) for step in range(4)] == [1, 1, 0.5, 0.5]
    with pytest.raises(
        InputError, match=r"optimizer\.milestone_factor: expected a number in \(0, 1\], got 0"
    ):
        OptimizerConfig(milestone_factor=0).validate()
    with pytest.raises(
        InputError, match=r"optimizer\.milestones: expected positive numbers of epochs, got 0"
    ):
        OptimizerConfig(schedule="step", milestones=[3, 0]).validate()
    with pytest.raises(
        InputError, match=r"optimizer\.warmup: expected at most the 5 epochs of the training, got 10"
    ):
        TrainingConfig(epochs=5, optimizer=OptimizerConfig(warmup=10)).validate()
