"""Learning rates as functions of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from cdkd_ext.training.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the rate for a step counted from 0 over the whole training."""
    rate = config.learning_rate
    warmup = config.warmup * steps_per_epoch
    if step < warmup:
        return rate * (step + 1) / (warmup + 1)
    if config.schedule == "cosine":
        return (
            rate
            * 0.5
            * (1 + math.cos(math.pi * (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)))
        )
    if config.schedule == "step":
        passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
        return rate * config.milestone_factor**passed
    return rate
