"""Distributions over places along an axis: around keypoints, and of mirror images."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussians(center: Tensor, sigma: float | Tensor, bins: int) -> Tensor:
    """Return the logarithms of Gaussians over bins.

    Args:
        center: (B, J) in bins, finite.
        sigma: standard deviation in bins, positive: one, or one per joint (B, J).
        bins: N.

    Returns:
        (B, J, N), each the logarithm of a distribution.
    """
    sigma = torch.as_tensor(sigma, dtype=center.dtype, device=center.device)
    distance = torch.arange(bins, dtype=center.dtype, device=center.device) - center[..., None]
    return torch.log_softmax(-0.5 * (distance / sigma[..., None]) ** 2, -1)


def mirrored(values: Tensor, sum_of_places: float, dim: int = -1) -> Tensor:
    """Return values along an axis of the mirror image, at the places of the image.

    Place i of the one is place `sum_of_places` - i of the other; between places the values are interpolated linearly,
    and beyond the first and the last one they are these.
    """
    count = values.shape[dim]
    source = (sum_of_places - torch.arange(count, dtype=torch.float64)).clamp(0, count - 1)
    lower = source.floor().long()
    if bool((source == lower).all()):
        return values.index_select(dim, lower.to(values.device))
    return _interpolated(values, source, dim)


def resampled(values: Tensor, source: Tensor, dim: int) -> Tensor:
    """Return values at places between the cells of an axis, interpolated linearly; beyond the ends they are 0.

    Args:
        values: any shape.
        source: (n,) places in cells.
        dim: the axis, which gets n places.
    """
    count = values.shape[dim]
    inside = ((source > -1) & (source < count)).to(values)
    shape = [1] * values.dim()
    shape[dim] = len(source)
    return _interpolated(values, source.clamp(0, count - 1), dim) * inside.reshape(shape)


def _interpolated(values: Tensor, source: Tensor, dim: int) -> Tensor:
    lower = source.floor().long()
    upper = (lower + 1).clamp(max=values.shape[dim] - 1)
    shape = [1] * values.dim()
    shape[dim] = len(source)
    share = (source - lower).to(values).reshape(shape)
    device = values.device
    low, high = (values.index_select(dim, places.to(device)) for places in (lower, upper))
    return low + (high - low) * share
