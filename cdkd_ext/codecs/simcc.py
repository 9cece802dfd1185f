"""SimCC labels: keypoint coordinates as classes along each axis (facts of the SimCC paper and its code)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cdkd_ext.errors import check


def num_bins(size: tuple[int, int], split_ratio: float) -> tuple[int, int]:
    """Return the numbers of bins (along x, along y) of a crop of (height, width) `size`."""
    height, width = size
    check(split_ratio > 0, "split_ratio", split_ratio, "a positive number")
    return int(width * split_ratio), int(height * split_ratio)


def bin_coordinates(keypoints: Tensor, split_ratio: float) -> Tensor:
    """Return continuous bin coordinates of keypoints in pixels (...): bin i stands for pixel i / k."""
    check(split_ratio > 0, "split_ratio", split_ratio, "a positive number")
    return keypoints * split_ratio


def hard_labels(coordinates: Tensor, bins: int, *, label_smoothing: float = 0.0) -> Tensor:
    """Return dense label distributions (..., bins) for bin coordinates (...).

    The label is the coordinate rounded half to even; it gets 1 - s, each other bin s / (bins - 1). A row
    whose label lies outside [0, bins) is zero. Training never builds these rows; they are for inspection.
    """
    check(bins > 1, "bins", bins, "at least 2")
    check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "a number in [0, 1)")
    label = coordinates.round()[..., None]
    position = torch.arange(bins, dtype=coordinates.dtype, device=coordinates.device)
    dense = torch.where(position == label, 1 - label_smoothing, label_smoothing / (bins - 1))
    return dense.to(coordinates.dtype) * _inside(coordinates, bins)


def gaussian_labels(coordinates: Tensor, bins: int, sigma: float) -> Tensor:
    """Return Gaussian densities (..., bins) of width `sigma` bins around bin coordinates (...).

    They are not renormalised. A row whose rounded coordinate lies outside [0, bins) is zero.
    """
    check(bins > 0, "bins", bins, "at least 1")
    check(sigma > 0, "sigma", sigma, "a positive number of bins")
    position = torch.arange(bins, dtype=coordinates.dtype, device=coordinates.device)
    distance = (position - coordinates[..., None]) / sigma
    return torch.exp(-0.5 * distance**2) / (sigma * math.sqrt(2 * math.pi)) * _inside(coordinates, bins)


def _inside(coordinates: Tensor, bins: int) -> Tensor:
    label = coordinates.round()[..., None]
    return ((label >= 0) & (label < bins)).to(coordinates.dtype)
