from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.codecs import bin_coordinates, gaussian_labels, hard_labels, num_bins
from cdkd_ext.errors import InputError


def test_bins() -> None:
    assert num_bins((64, 48), 2.0) == (96, 128)
    assert num_bins((33, 33), 1.5) == (49, 49)
    torch.testing.assert_close(bin_coordinates(torch.tensor([[1.5, 3.0]]), 3.0), torch.tensor([[4.5, 9.0]]))


def test_golden_rows() -> None:
    # halves go to the even bin
    hard = hard_labels(torch.tensor([1.4, 0.5, 1.5, -0.6, 3.6]), 4)
    assert hard.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0] * 4, [0] * 4]
    smooth = hard_labels(torch.tensor([2.0, 9.0]), 5, label_smoothing=0.2)
    torch.testing.assert_close(smooth, torch.tensor([[0.05, 0.05, 0.8, 0.05, 0.05], [0.0] * 5]))


@given(st.lists(st.floats(-5, 25), min_size=1, max_size=6), st.integers(1, 20), st.floats(0.3, 6))
def test_gaussian_against_plain_loops(coordinates: list[float], bins: int, sigma: float) -> None:
    rows = gaussian_labels(torch.tensor(coordinates, dtype=torch.float64), bins, sigma)
    for row, mu in zip(rows.tolist(), coordinates, strict=True):
        inside = 0 <= round(mu) < bins
        for i, value in enumerate(row):
            density = math.exp(-((i - mu) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
            assert value == pytest.approx(density if inside else 0, abs=1e-12)


@given(st.lists(st.floats(-3, 25), min_size=1, max_size=6), st.integers(2, 20), st.floats(0, 0.9))
def test_hard_rows_sum_to_one_or_are_zero(coordinates: list[float], bins: int, smoothing: float) -> None:
    rows = hard_labels(torch.tensor(coordinates, dtype=torch.float64), bins, label_smoothing=smoothing)
    expected = [1.0 if 0 <= round(mu) < bins else 0.0 for mu in coordinates]
    torch.testing.assert_close(rows.sum(-1), torch.tensor(expected, dtype=torch.float64))


def test_shapes_and_empty() -> None:
    assert hard_labels(torch.zeros(2, 3), 5).shape == (2, 3, 5)
    assert gaussian_labels(torch.zeros(0, 3), 5, 1.0).shape == (0, 3, 5)


def test_bad_parameters() -> None:
    for call, field in [
        (lambda: hard_labels(torch.zeros(1), 1), "bins"),
        (lambda: hard_labels(torch.zeros(1), 5, label_smoothing=1.0), "label_smoothing"),
        (lambda: gaussian_labels(torch.zeros(1), 5, 0.0), "sigma"),
        (lambda: gaussian_labels(torch.zeros(1), 0, 1.0), "bins"),
        (lambda: num_bins((4, 4), 0), "split_ratio"),
        (lambda: bin_coordinates(torch.zeros(1), -1), "split_ratio"),
    ]:
        with pytest.raises(InputError, match=f"^{field}: "):
            call()
