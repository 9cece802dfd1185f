"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from cdkd_ext.models import PoseNetwork

_WARMUP = (
    10  # steps by which the first averages are shorter: from random weights on, nothing is worth keeping long
)


class WeightAverage:
    """Follows a network in training: each weight and each statistic of a batch norm is an average over the last steps.

    After step t the decay is min(decay, (1 + t) / (10 + t)), so that the fresh weights are soon forgotten.

    Args:
        network: what is trained; its weights are where the average begins.
        decay: share of the average that stays in a step, in (0, 1): 0.999 looks back some thousand steps.

    Attributes:
        network: a copy of the network with the averaged weights, in evaluation mode.

    Example:
        ```python
        average = WeightAverage(student, 0.999)
        for batch in loader:
            step(student, batch)
            average.update(student)
        save_model(average.network, "student.safetensors")
        ```
    """

    def __init__(self, network: PoseNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, network: PoseNetwork) -> None:
        """Take in the weights after a step."""
        self._steps += 1
        weight = 1 - min(self._decay, (1 + self._steps) / (_WARMUP + self._steps))
        current = network.state_dict()
        own = self.network.state_dict()
        floating = [name for name, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[name] for name in floating], [current[name] for name in floating], weight)
        for name in own.keys() - set(floating):
            own[name].copy_(current[name])

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from."""
        return {"steps": self._steps, "weights": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self._steps = int(state["steps"])
        self.network.load_state_dict(state["weights"])
