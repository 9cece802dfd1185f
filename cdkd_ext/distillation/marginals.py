"""Heatmaps as distributions along the axes of an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DEFAULT_CUT = 4  # cells on either side of a map's peak that count


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
