from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_values import TYPES, assert_near, exact, normal

from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.scale_rows import scale_rows


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("rows", "length"), [(1, 1), (3, 7), (5, 31), (4, 32), (133, 65), (17, 192), (2, 4096)]
)
def test_agrees_with_float64(run: Any, rows: int, length: int, dtype: str) -> None:
    unscaled = normal(0, rows, length, dtype=dtype)
    scale = normal(1, rows, dtype="float64" if dtype == "float64" else "float32")
    weighted = normal(2, rows, dtype=scale.dtype.name)
    scaled, total = run(scale_rows, unscaled, scale, weighted)
    assert_near(scaled, exact(unscaled) * scale[:, None])
    np.testing.assert_allclose(total[0], (exact(weighted) * scale).sum(), rtol=1e-12)


def test_more_rows_than_blocks(run: Any) -> None:
    unscaled, scale, weighted = normal(0, 5000, 3), normal(1, 5000), normal(2, 5000)
    scaled, total = run(scale_rows, unscaled, scale, weighted)
    assert_near(scaled, exact(unscaled) * exact(scale)[:, None])
    np.testing.assert_allclose(total[0], (exact(weighted) * exact(scale)).sum(), rtol=1e-12)


def test_what_meets_a_zero_is_left_out(emulation: Emulation) -> None:
    unscaled, weighted = normal(0, 3, 9), normal(1, 3)
    unscaled[1], weighted[1] = np.nan, np.inf
    scale = np.array([2, 0, 1], np.float32)
    emulation.configure()
    scaled, total = scale_rows(emulation, unscaled, scale, weighted)
    np.testing.assert_array_equal(scaled, np.stack([unscaled[0] * 2, np.zeros(9, np.float32), unscaled[2]]))
    assert total is not None and total[0] == float(weighted[0]) * 2 + float(weighted[2])


def test_rows_that_lie_differently_in_memory(emulation: Emulation) -> None:
    """Rows of three start at every alignment; the input also begins four bytes late, so that no pair agrees."""
    emulation.configure()
    memory = normal(0, 1 + 8 * 11)
    unscaled = memory[1:].reshape(8, 11)
    scaled, _ = scale_rows(emulation, unscaled, np.full(8, 3, np.float32))
    np.testing.assert_array_equal(scaled, unscaled * 3)


def test_no_rows_sum_to_zero(emulation: Emulation) -> None:
    nothing = np.empty((0, 4), np.float32)
    _, total = scale_rows(emulation, nothing, np.empty(0, np.float32), np.empty(0, np.float32))
    assert total is not None and total[0] == 0


def test_a_sum_of_nothing_is_written_by_the_same_launch(emulation: Emulation) -> None:
    scaled, total = scale_rows(emulation, np.ones((9, 5), np.float32), np.full(9, 2, np.float32), sums=True)
    assert total is not None and total.tolist() == [0.0]
    assert np.array_equal(scaled, np.full((9, 5), 2, np.float32))
