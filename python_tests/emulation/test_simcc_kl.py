from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_values import TYPES, assert_near, convert, exact, normal

from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.simcc_kl import simcc_kl

FORMS: list[dict[str, float]] = [{}, {"label_smoothing": 0.2}, {"sigma": 1.5}, {"sigma": 40.0}]


def reference(
    logits: np.ndarray, target: np.ndarray, label_smoothing: float = 0.0, sigma: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and its derivative by the logits; the target lies inside."""
    logits, target = exact(logits), exact(target)[:, None]
    bins = logits.shape[1]
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    index = np.arange(bins)
    if sigma:
        t = np.exp(-(((index - target) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
    else:
        smoothing = label_smoothing if bins > 1 else 0.0
        t = np.where(index == np.rint(target), 1 - smoothing, smoothing / max(bins - 1, 1))
    terms = np.where(t > 0, t * (np.log(np.where(t > 0, t, 1)) - log_p), 0)
    return terms.sum(-1), np.exp(log_p) * t.sum(-1, keepdims=True) - t


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("rows", "bins"), [(1, 1), (3, 2), (2, 31), (2, 257), (17, 192), (133, 29), (2, 2049), (1, 4096)]
)
def test_agrees_with_float64(run: Any, rows: int, bins: int, dtype: str, form: dict[str, float]) -> None:
    logits = normal(0, rows, bins, dtype=dtype, scale=2)
    target = np.random.default_rng(1).uniform(0, bins - 1, rows).astype(np.float32)
    loss, gradient = run(simcc_kl, logits, target, **form)
    expected = reference(logits, target, **form)
    assert_near(loss, expected[0])
    assert_near(gradient, expected[1])


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_rows_beyond_shared_memory(run: Any, form: dict[str, float]) -> None:
    logits, target = normal(0, 2, 12300), np.array([3.2, 12000.7])
    loss, gradient = run(simcc_kl, logits, target, **form)
    expected = reference(logits, target, **form)
    assert_near(loss, expected[0])
    assert_near(gradient, expected[1])


def test_more_rows_than_blocks(emulation: Emulation) -> None:
    logits, target = normal(0, 4100, 6), np.random.default_rng(1).uniform(0, 5, 4100)
    emulation.configure()
    loss, gradient = simcc_kl(emulation, logits, target)
    expected = reference(logits, target)
    assert_near(loss, expected[0])
    assert gradient is not None
    assert_near(gradient, expected[1])


def test_without_a_gradient(emulation: Emulation) -> None:
    emulation.configure()
    logits, target = normal(0, 3, 40), np.array([0.0, 17.5, 39.0])
    loss, nothing = simcc_kl(emulation, logits, target, wants_gradient=False)
    assert nothing is None
    np.testing.assert_array_equal(loss, simcc_kl(emulation, logits, target)[0])


@pytest.mark.parametrize("dtype", TYPES)
def test_targets_of_every_type_round_half_to_even(emulation: Emulation, dtype: str) -> None:
    emulation.configure()
    target = convert(np.array([0.5, 1.5, 2.5, 3.0]), dtype)
    loss, _ = simcc_kl(emulation, normal(0, 4, 5), target)
    assert_near(loss, reference(normal(0, 4, 5), np.array([0.0, 2.0, 2.0, 3.0]))[0])


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_rows_outside_and_rows_that_are_not_numbers(emulation: Emulation, form: dict[str, float]) -> None:
    emulation.configure()
    logits = normal(0, 6, 8)
    target = np.array([-0.6, 7.6, np.nan, 3.0, -0.4, 1e30])
    logits[0, 2] = np.nan  # outside: whatever the logits hold
    logits[3, 1] = np.nan
    loss, gradient = simcc_kl(emulation, logits, target, **form)
    assert gradient is not None
    assert (loss[[0, 1, 5]] == 0).all() and (gradient[[0, 1, 5]] == 0).all()
    assert np.isnan(loss).tolist() == [False, False, True, True, False, False]
    assert np.isnan(gradient).all(-1).tolist() == [False, False, True, True, False, False]
    assert_near(loss[4:5], reference(logits[4:5], target[4:5], **form)[0])


def test_excluded_bins(emulation: Emulation) -> None:
    emulation.configure()
    logits = normal(0, 2, 5)
    logits[:, 2] = -np.inf
    loss, gradient = simcc_kl(emulation, logits, np.array([1.0, 2.0]))
    assert gradient is not None
    assert np.isfinite(loss[0]) and loss[1] == np.inf
    assert gradient[0, 2] == 0 and np.isfinite(gradient).all()
