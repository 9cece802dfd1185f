"""Distributions over places along an axis: from heatmaps and keypoints, and their mirror images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Peaks(NamedTuple):
    """The highest cells of maps.

    Attributes:
        x: (B, J) int64, columns.
        y: (B, J) int64, rows.
        height: (B, J), the maps' values there.
    """

    x: Tensor
    y: Tensor
    height: Tensor


def peaks(maps: Tensor) -> Peaks:
    """Find the highest cell of each map (B, J, h, w); of equal ones the first, row by row."""
    flat = maps.flatten(2)
    height, place = flat.max(-1)
    return Peaks(place % maps.shape[-1], place // maps.shape[-1], height)


def cut_marginals(
    maps: Tensor, peak: Peaks, *, cut: int | None = None, sharpen: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the marginals of sharpened maps, cut to the cells around their peaks.

    Args:
        maps: (B, J, h, w), zero or more.
        peak: of the maps.
        cut: cells on either side of the peak that count, on both axes at once; None keeps the whole map.
        sharpen: power that the maps are raised to.

    Returns:
        (B, J, w) and (B, J, h), each the logarithm of a distribution, -inf where it is zero; uniform where a map is
        empty.
    """
    # relative to the peak, so that no power underflows to an empty map
    maps = maps / peak.height.clamp(min=torch.finfo(maps.dtype).tiny)[..., None, None]
    if sharpen != 1:
        maps = maps**sharpen
    if cut is not None:
        columns = _near(peak.x, maps.shape[-1], cut)[..., None, :]
        rows = _near(peak.y, maps.shape[-2], cut)[..., :, None]
        maps = maps * (columns & rows)
    return log_normalized(maps.sum(-2)), log_normalized(maps.sum(-1))


def _near(center: Tensor, cells: int, cut: int) -> Tensor:
    return (torch.arange(cells, device=center.device) - center[..., None]).abs() <= cut


def log_normalized(weights: Tensor) -> Tensor:
    """Return the logarithm of weights (…, N) of at least 0, divided by their sum; uniform where all are 0."""
    total = weights.sum(-1, keepdim=True)
    shares = torch.where(
        total > 0, weights / total.clamp(min=torch.finfo(weights.dtype).tiny), 1 / weights.shape[-1]
    )
    return shares.log()


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
