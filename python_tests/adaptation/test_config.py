"""The options of an adaptation."""

from __future__ import annotations

import pytest

from cdkd_ext.adaptation import AdaptationConfig
from cdkd_ext.errors import InputError


@pytest.mark.parametrize(("steps", "check_every", "epochs"), [(50, 50, 1), (100, 100, 1), (900, 100, 9)])
def test_a_short_run_is_measured_at_its_end(steps: int, check_every: int, epochs: int) -> None:
    config = AdaptationConfig(model="network.onnx", steps=steps)
    config.validate()
    assert (config.check_every, config.epochs) == (check_every, epochs)


@pytest.mark.parametrize(("steps", "check_every"), [(50, 100), (250, None)])
def test_steps_that_are_no_portions_are_named(steps: int, check_every: int | None) -> None:
    config = AdaptationConfig(model="network.onnx", steps=steps, check_every=check_every)
    with pytest.raises(InputError, match=f"steps: expected a multiple of check_every, 100, got {steps}"):
        config.validate()
