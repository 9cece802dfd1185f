"""Distributions along an axis, against loops and what they have to hold."""

from __future__ import annotations

import math

import pytest
import torch

from cdkd_ext.teachers.distributions import (
    cut_marginals,
    gaussians,
    log_normalized,
    mirrored,
    peaks,
    resampled,
)


def test_peaks_are_the_first_highest_cells():
    maps = torch.zeros(1, 2, 3, 4)
    maps[0, 0, 2, 1] = maps[0, 0, 2, 3] = 0.7
    found = peaks(maps)
    assert (found.x.tolist(), found.y.tolist()) == ([[1, 0]], [[2, 0]])
    assert found.height[0].tolist() == pytest.approx([0.7, 0.0])


@pytest.mark.parametrize("cut", [None, 0, 2])
@pytest.mark.parametrize("sharpen", [1.0, 2.5])
def test_marginals_against_a_loop(cut, sharpen):
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    log_x, log_y = cut_marginals(maps, peaks(maps), cut=cut, sharpen=sharpen)
    assert (log_x.shape, log_y.shape) == ((2, 3, 7), (2, 3, 5))
    for b in range(2):
        for j in range(3):
            one = maps[b, j]
            y0, x0 = divmod(int(one.argmax()), 7)
            across, down = [0.0] * 7, [0.0] * 5
            for y in range(5):
                for x in range(7):
                    if cut is None or max(abs(y - y0), abs(x - x0)) <= cut:
                        across[x] += one[y, x].item() ** sharpen
                        down[y] += one[y, x].item() ** sharpen
            for values, found in ((across, log_x[b, j]), (down, log_y[b, j])):
                expected = [value / sum(values) for value in values]
                assert found.exp().tolist() == pytest.approx(expected, rel=1e-12)


def test_an_empty_map_is_uniform_and_tiny_values_do_not_vanish():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 1, 1, 2] = 1e-30
    log_x, _ = cut_marginals(maps, peaks(maps), cut=1, sharpen=3.0)
    assert log_x[0, 0].exp().tolist() == pytest.approx([0.25] * 4)
    assert log_x[0, 1].exp().tolist() == pytest.approx([0, 0, 1, 0])
    assert log_normalized(torch.zeros(3)).exp().tolist() == pytest.approx([1 / 3] * 3)


def test_gaussians_have_their_mean_and_width():
    center, sigma = (
        torch.tensor([[20.3, 31.0]], dtype=torch.float64),
        torch.tensor([[1.5, 4.0]], dtype=torch.float64),
    )
    shares = gaussians(center, sigma, 64).exp()
    places = torch.arange(64)
    mean = (shares * places).sum(-1)
    variance = (shares * (places - mean[..., None]) ** 2).sum(-1)
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(mean, center, atol=1e-6, rtol=0)
    torch.testing.assert_close(variance.sqrt(), sigma, atol=1e-4, rtol=0)


@pytest.mark.parametrize("total", [7.0, 6.75, 8.0])
def test_a_mirror_image_of_a_line_is_a_line(total):
    """A linear function is what linear interpolation keeps exactly, but for the ends."""
    values = 3.0 + 2.0 * torch.arange(8, dtype=torch.float64)
    back = mirrored(values, total)
    places = (total - torch.arange(8, dtype=torch.float64)).clamp(0, 7)
    torch.testing.assert_close(back, 3.0 + 2.0 * places)
    maps = torch.rand(2, 8, 8, dtype=torch.float64)
    assert torch.equal(mirrored(maps, 7.0), maps.flip(-1))
    assert torch.equal(mirrored(maps, 7.0, dim=1), maps.flip(1))


def test_resampling_is_zero_outside():
    values = torch.tensor([1.0, 3.0, 5.0])
    places = torch.tensor([-2.0, 0.5, 2.0, 3.5], dtype=torch.float64)
    assert resampled(values, places, 0).tolist() == [0.0, 2.0, 5.0, 0.0]
    assert math.isclose(resampled(values[None], places, 1)[0, 1].item(), 2.0)
