"""Whether every term of the loss was finite, asked without making a GPU wait in every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOOK_EVERY = 50  # steps, on a GPU


class FiniteWatch:
    """Keeps the first step whose loss was not finite on the device, and reads it now and then.

    On the CPU, where reading costs nothing, it looks in every step. On a GPU it looks in every 50th, and whenever it is
    asked: some steps may follow the first bad one, so ask before anything is kept.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._values: Tensor | None = None  # (terms,) of the first bad step, else of the last one
        self._step: Tensor | None = None  # (), float64: the first bad step, else the last one
        self._added = 0

    def add(self, step: int, losses: dict[str, Tensor]) -> str | None:
        """Watch a step's terms; return what `report` does if it was time to look, else None."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        number = torch.full((), step, dtype=torch.float64, device=values.device)
        if self._values is None or self._step is None or list(losses) != self._names:
            self._names, self._values, self._step = list(losses), values, number
        else:
            fine = torch.isfinite(self._values).all()
            self._values = torch.where(fine, values, self._values)
            self._step = torch.where(fine, number, self._step)
        self._added += 1
        return self.report() if values.device.type == "cpu" or self._added % LOOK_EVERY == 0 else None

    def report(self) -> str | None:
        """`step 4: simcc became nan` for the first bad step, None if there was none; waits for a GPU."""
        if self._values is None or self._step is None:
            return None
        terms = {
            name: value
            for name, value in zip(self._names, self._values.tolist(), strict=True)
            if not math.isfinite(value)
        }
        if not terms:
            return None
        first = [name for name in terms if name != "total"] or list(terms)
        return f"step {int(self._step)}: {', '.join(first)} became {terms[first[0]]}"
