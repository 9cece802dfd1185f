"""Outputs of imaginary networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Outputs(NamedTuple):
    feature: Tensor
    logits_x: Tensor
    logits_y: Tensor


@pytest.fixture
def make_outputs() -> Callable[..., Outputs]:
    """Random outputs with a feature of `size` and N_x, N_y bins, gradients on."""

    def make(
        batch: int = 3,
        joints: int = 2,
        size: tuple[int, int] = (2, 3),
        bins: tuple[int, int] = (12, 8),
        dtype: torch.dtype = torch.float64,
    ) -> Outputs:
        shapes = ((batch, joints, *size), (batch, joints, bins[0]), (batch, joints, bins[1]))
        return Outputs(
            *(torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes)
        )

    return make
