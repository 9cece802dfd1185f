"""Distributions along an axis: what they have to hold."""

from __future__ import annotations

import math

import pytest
import torch

from cdkd_ext.teachers.distributions import gaussians, mirrored, resampled


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
