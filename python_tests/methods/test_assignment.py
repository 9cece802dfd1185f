"""The cheapest assignment, against scipy and against all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cdkd_ext.methods.assignment import assign


def total(costs: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.take_along_axis(costs, columns[..., None], -1)[..., 0].sum(-1)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("shape", [(40, 3, 3), (40, 4, 6), (20, 1, 5)])
def test_no_permutation_is_cheaper(shape: tuple[int, int, int], rounded: bool) -> None:
    costs = np.random.default_rng(0).normal(size=shape)
    costs = np.round(costs) if rounded else costs
    found = assign(costs)
    assert all(len(set(row)) == shape[1] for row in found.tolist())
    choices = np.array(list(permutations(range(shape[2]), shape[1])))
    rows = np.arange(shape[1])
    best = costs[:, rows, choices].sum(-1).min(-1)
    np.testing.assert_allclose(total(costs, found), best, atol=1e-12)


def test_it_equals_scipy_for_joints_and_queries() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    costs = np.random.default_rng(1).normal(size=(64, 17, 100)).astype(np.float32)
    expected = np.stack([optimize.linear_sum_assignment(matrix)[1] for matrix in costs])
    assert np.array_equal(assign(costs), expected)


def test_what_is_not_finite_is_dear_and_ends() -> None:
    costs = np.array([[[np.nan, 1.0, np.inf], [2.0, np.nan, 9.0]]])
    assert assign(costs).tolist() == [[1, 0]]
    assert sorted(assign(np.full((1, 3, 4), np.nan))[0].tolist()) == [0, 1, 2]
    assert assign(np.zeros((0, 3, 4))).shape == (0, 3)
