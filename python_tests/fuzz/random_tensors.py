"""Tensors that differ in everything a kernel could trip over: sizes, strides, alignment, types and values."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
VALUES = ("normal", "normal", "normal", "ties", "wide", "tiny", "huge", "special")
MODERATE = 1e4  # values up to here have a meaningful result in every type
_SPECIAL = (math.nan, math.inf, -math.inf, -0.0, 1e-45, 3e38, -3e38, 1e300, 65504.0)


def small(rng: random.Random, least: int = 1, most: int = 9) -> int:
    """A size of an axis, often an edge of its range."""
    return rng.choice((least, least + 1, rng.randint(least, most), rng.randint(least, most)))


def length(rng: random.Random) -> int:
    """Length of a row: mostly short and odd, now and then longer than any tile or stage."""
    kind = rng.random()
    if kind < 0.01:
        return rng.randint(4000, 40000)
    if kind < 0.1:
        return rng.choice((63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513, 768, 1023))
    return rng.choice((1, 2, 3, rng.randint(1, 40), rng.randint(1, 40), 2 * rng.randint(0, 40) + 1))


def random_type(rng: random.Random) -> torch.dtype:
    """A floating type, float32 half of the time."""
    return torch.float32 if rng.random() < 0.5 else rng.choice(FLOATING)


class Maker:
    """Makes the tensors of one call from one seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._generator = torch.Generator().manual_seed(rng.getrandbits(48))

    def tensor(self, *shape: int, dtype: torch.dtype, values: str = "normal", scale: float = 1.0) -> Tensor:
        """A tensor of `shape` with random strides, alignment and values of one of the kinds in VALUES."""
        layout = self.rng.choice(("packed", "packed", "offset", "permuted", "sliced", "expanded", "reversed"))
        if layout == "offset":
            late = self.rng.randint(1, 5)
            return self._fill((math.prod(shape) + late,), dtype, values, scale)[late:].view(shape)
        if layout == "permuted" and len(shape) > 1:
            order = self.rng.sample(range(len(shape)), len(shape))
            base = self._fill(tuple(shape[axis] for axis in order), dtype, values, scale)
            return base.permute([order.index(axis) for axis in range(len(shape))])
        if layout == "sliced" and shape:
            step, first = self.rng.randint(1, 3), self.rng.randint(0, 2)
            base = self._fill((*shape[:-1], shape[-1] * step + first), dtype, values, scale)
            return base[..., first::step][..., : shape[-1]]
        if layout == "expanded" and shape:
            axis = self.rng.randrange(len(shape))
            base = self._fill((*shape[:axis], 1, *shape[axis + 1 :]), dtype, values, scale)
            return base.expand(shape)
        if layout == "reversed" and shape:  # a channels-last-like storage order
            return self._fill(tuple(reversed(shape)), dtype, values, scale).permute(
                *reversed(range(len(shape)))
            )
        return self._fill(shape, dtype, values, scale)

    def _fill(self, shape: tuple[int, ...], dtype: torch.dtype, values: str, scale: float) -> Tensor:
        normal = torch.randn(shape, dtype=torch.float64, generator=self._generator)
        if values == "ties":
            normal = normal.round()
        elif values == "wide":
            normal = normal * 30
        elif values == "tiny":
            normal = normal * 1e-41
        elif values == "huge":
            normal = normal * (1e300 if dtype == torch.float64 else 1e38)
        elif values == "special":
            chosen = torch.rand(shape, generator=self._generator) < self.rng.choice((0.02, 0.3, 1.0))
            special = torch.full(shape, self.rng.choice(_SPECIAL), dtype=torch.float64)
            normal = torch.where(chosen, special, normal)
        return (normal * scale).to(dtype)


def is_moderate(*tensors: Tensor) -> bool:
    """Whether all values are finite and of a size that no step of an op overflows on."""
    return all(bool((tensor.detach().double().abs() <= MODERATE).all()) for tensor in tensors)
