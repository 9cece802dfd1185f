"""The ops under test: one entry per op and variant, for the tests that every op has to pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from cdkd_ext import ops
from cdkd_ext.ops import reference


@dataclass(frozen=True)
class Case:
    """An op with inputs.

    `inputs(dtype, batch)` returns fresh positional and keyword arguments, the same for the same arguments; tensors
    that get gradients require them.
    """

    op: str
    variant: str
    inputs: Callable[[torch.dtype, int], tuple[tuple[Any, ...], dict[str, Any]]]

    @property
    def public(self) -> Callable[..., Any]:
        return getattr(ops, self.op)

    @property
    def reference(self) -> Callable[..., Any]:
        return getattr(reference, self.op)

    @property
    def raw(self) -> Any:
        return getattr(torch.ops.cdkd, self.op).default


def normal(*shape: int, dtype: torch.dtype, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, dtype=torch.float64, generator=generator) * scale).to(dtype)


def cca_kl(
    classes: int,
    bins: int,
    phase: str = "paper",
    *,
    offset: float | None = None,
    weights: tuple[float, ...] = (),
    probabilities: bool = False,
) -> Any:
    def inputs(dtype: torch.dtype, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        student = normal(batch, 3, classes, dtype=dtype, seed=0, scale=2).requires_grad_()
        teacher = normal(batch, 3, bins, dtype=dtype, seed=1, scale=2)
        accumulator = torch.float64 if dtype == torch.float64 else torch.float32
        tau = torch.tensor(1.7, dtype=accumulator, requires_grad=True)
        options: dict[str, Any] = {"phase": phase} if offset is None else {"offset": offset}
        if weights:
            options["weights"] = torch.tensor(weights).to(dtype).expand(batch, 3).clone()
        if probabilities:
            teacher, options["probabilities"] = teacher.clamp(min=0), True
            teacher[..., 1] = 0.5
        return (student, teacher, tau), options

    return inputs


def simcc_kl(bins: int, **options: float) -> Any:
    def inputs(dtype: torch.dtype, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        logits = normal(batch, 3, bins, dtype=dtype, seed=0, scale=2).requires_grad_()
        target = normal(batch, 3, dtype=torch.float64, seed=1, scale=bins / 3) + bins / 2
        return (logits, target), options

    return inputs


def simcc_decode(
    bins_x: int, bins_y: int, split_ratio: float, *, flip: bool, affine: bool, score: str
) -> Any:
    def inputs(dtype: torch.dtype, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        logits_x = normal(batch, 3, bins_x, dtype=dtype, seed=0, scale=2).requires_grad_()
        logits_y = normal(batch, 3, bins_y, dtype=dtype, seed=1, scale=2)
        mirrored_x = normal(batch, 3, bins_x, dtype=dtype, seed=2, scale=2)
        mirrored_y = normal(batch, 3, bins_y, dtype=dtype, seed=3, scale=2)
        options: dict[str, Any] = {"score": score}
        if flip:
            options["flipped"] = (mirrored_x, mirrored_y, torch.tensor([0, 2, 1]))
        if affine:
            options["to_image"] = normal(batch, 2, 3, dtype=torch.float64, seed=4)
        return (logits_x, logits_y, split_ratio), options

    return inputs


def projector_cosine(positions: int, targets: int, projectors: int, **options: Any) -> Any:
    def inputs(dtype: torch.dtype, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        feature = normal(batch, 3, positions, dtype=dtype, seed=0).requires_grad_()
        weight = normal(projectors, targets, positions, dtype=dtype, seed=1, scale=0.4).requires_grad_()
        bias = normal(projectors, targets, dtype=dtype, seed=2).requires_grad_()
        select = normal(batch, projectors, 3, dtype=dtype, seed=3).requires_grad_()
        teacher = normal(batch, 3, targets, dtype=dtype, seed=4)
        return (feature, weight, bias, select, teacher), options

    return inputs


def sau_select(*, training: bool) -> Any:
    def inputs(dtype: torch.dtype, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        feature = normal(batch, 3, 4, 5, dtype=dtype, seed=0).requires_grad_()
        convolutions = [normal(3, 3, k, k, dtype=dtype, seed=k, scale=0.3) for k in (3, 5)]
        norm_weight = normal(2, 3, dtype=dtype, seed=1).requires_grad_()
        norm_bias = normal(2, 3, dtype=dtype, seed=2).requires_grad_()
        running_mean = normal(2, 3, dtype=dtype, seed=3, scale=0.1)
        running_var = normal(2, 3, dtype=dtype, seed=4).abs() + 0.5
        squeeze_weight = normal(4, 3, dtype=dtype, seed=6).requires_grad_()
        squeeze_bias = normal(4, dtype=dtype, seed=7).requires_grad_()
        select_weight = normal(2, 3, 4, dtype=dtype, seed=8).requires_grad_()
        select_bias = normal(2, 3, dtype=dtype, seed=9).requires_grad_()
        norm = (norm_weight, norm_bias, running_mean, running_var)
        linear = (squeeze_weight, squeeze_bias, select_weight, select_bias)
        return (feature, convolutions, *norm, *linear), {"training": training}

    return inputs


CASES = [
    Case("cca_kl", "paper", cca_kl(12, 48, "paper")),
    Case("cca_kl", "centered", cca_kl(12, 48, "centered")),
    Case("cca_kl", "fractional", cca_kl(15, 40, "centered")),
    Case("cca_kl", "fewer", cca_kl(33, 11, offset=-0.4, weights=(0.5, 0.0, -2.0), probabilities=True)),
    Case("simcc_kl", "hard", simcc_kl(37)),
    Case("simcc_kl", "smoothed", simcc_kl(37, label_smoothing=0.2)),
    Case("simcc_kl", "gaussian", simcc_kl(37, sigma=1.5)),
    Case("simcc_decode", "plain", simcc_decode(24, 37, 2.0, flip=False, affine=False, score="min")),
    Case("projector_cosine", "relu", projector_cosine(6, 10, 2, activation="relu")),
    Case("projector_cosine", "none", projector_cosine(7, 9, 3, activation="none", eps=0.1)),
    Case("sau_select", "training", sau_select(training=True)),
    Case("sau_select", "evaluation", sau_select(training=False)),
    Case("simcc_decode", "flipped", simcc_decode(24, 37, 3.0, flip=True, affine=True, score="mean")),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.op}-{case.variant}")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="session")
def find_case() -> Callable[[str, str], Case]:
    """Finds the case of an op and a variant."""
    return lambda op, variant: next(case for case in CASES if (case.op, case.variant) == (op, variant))
