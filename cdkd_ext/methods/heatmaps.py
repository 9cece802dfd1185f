"""What methods with heatmaps share: targets, and decoding to keypoints (SimpleBaselines, HRNet and DARK, as published)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_option, check_type
from cdkd_ext.methods.coordinates import check_permutation
from cdkd_ext.tensor_checks import check_tensor

DECODINGS = ("quarter", "dark")

# what cv2.GaussianBlur uses for small kernels instead of a sampled Gaussian
_SMALL_KERNELS = {
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}

# of DARK, central differences, of two cells for the second: what a cell (right, down) of the highest one adds to four times
# the derivatives x, y, xx, yy and xy
_DERIVATIVES = {
    (0, 0): (0, 0, -2, -2, 0),
    (1, 0): (2, 0, 0, 0, 0),
    (-1, 0): (-2, 0, 0, 0, 0),
    (0, 1): (0, 2, 0, 0, 0),
    (0, -1): (0, -2, 0, 0, 0),
    (2, 0): (0, 0, 1, 0, 0),
    (-2, 0): (0, 0, 1, 0, 0),
    (0, 2): (0, 0, 0, 1, 0),
    (0, -2): (0, 0, 0, 1, 0),
    (1, 1): (0, 0, 0, 0, 1),
    (-1, -1): (0, 0, 0, 0, 1),
    (1, -1): (0, 0, 0, 0, -1),
    (-1, 1): (0, 0, 0, 0, -1),
}


def heatmap_sigma(heatmap_size: tuple[int, int]) -> float:
    """The published width of the targets in cells: 2 where the longer side has 64, in proportion, at least 1.

    Args:
        heatmap_size: (height, width) in cells.
    """
    check(min(heatmap_size) > 0, "heatmap_size", heatmap_size, "positive (height, width)")
    return max(1.0, max(heatmap_size) / 32)


def check_sigma(sigma: float | None) -> None:
    """Fail unless it is a width of targets in cells, or None for `heatmap_sigma`."""
    fits = sigma is None or 0 < sigma < math.inf
    check(fits, "sigma", sigma, "a positive number of cells, or None")


def heatmap_targets(
    keypoints: Tensor,
    weights: Tensor,
    input_size: tuple[int, int],
    heatmap_size: tuple[int, int],
    sigma: float,
    *,
    quantized: bool = True,
) -> tuple[Tensor, Tensor]:
    """Gaussians of height 1 around the keypoints, and the weights of the joints that have one.

    Cell i stands for pixel stride · i. As in HRNet, a joint's Gaussian is centred on the nearest cell and cut off
    three sigma away; with `quantized=False`, as in DARK, it is centred on the joint and not cut off. A joint
    whose three-sigma square does not touch the map loses its weight.

    Args:
        keypoints: (B, J, 2) x and y in pixels of the crop; anything where the weight is 0.
        weights: (B, J) factors, 0 for joints without a label.
        input_size: (height, width) of the crop in pixels.
        heatmap_size: (h, w) in cells.
        sigma: standard deviation in cells.
        quantized: centre the Gaussians on cells.

    Returns:
        Targets (B, J, h, w) and weights (B, J), of the keypoints' type.
    """
    check_tensor("keypoints", keypoints, ("B", "J", 2))
    check_tensor("weights", weights, tuple(keypoints.shape[:2]))
    check(min(input_size) > 0, "input_size", input_size, "positive (height, width)")
    check(min(heatmap_size) > 0, "heatmap_size", heatmap_size, "positive (height, width)")
    check(0 < sigma < math.inf, "sigma", sigma, "a positive number of cells")
    reach = 3 * sigma
    weights = weights.to(keypoints.dtype)
    used = weights > 0
    sides = []  # per axis (B, J, cells)
    for axis, size, pixels in ((0, heatmap_size[1], input_size[1]), (1, heatmap_size[0], input_size[0])):
        center = torch.where(weights > 0, keypoints[..., axis], 0) * (size / pixels)
        if quantized:
            center = torch.trunc(center + 0.5)
        used = used & (torch.trunc(center - reach) < size) & (torch.trunc(center + reach + 1) >= 0)
        distance = torch.arange(size, dtype=center.dtype, device=center.device) - center[..., None]
        side = torch.exp(-(distance**2) / (2 * sigma**2))
        sides.append(torch.where(distance.abs() <= reach, side, 0) if quantized else side)
    drawn = sides[1][..., :, None] * sides[0][..., None, :]
    targets = torch.where(used[..., None, None], drawn, 0)
    return targets, weights * used


def decode_heatmaps(
    heatmaps: Tensor,
    input_size: tuple[int, int],
    *,
    flipped: tuple[Tensor, Tensor] | None = None,
    to_image: Tensor | None = None,
    method: str = "quarter",
    blur_kernel: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode keypoints as the highest cells, refined to a fraction of a cell, and score them.

    Cell i stands for pixel stride · i. "quarter" moves a quarter of a cell towards the higher neighbour on each
    axis (HRNet); "dark" blurs the map, takes its logarithm and goes to the maximum of the Taylor expansion of
    second order (Zhang et al., DARK). Both leave maxima beside the border where they are, and "dark" those whose expansion
    has its maximum outside of the map: there the released code puts keypoints, thousands of pixels off where a map is flat.
    A map without a positive cell gives the crop's origin, as in the released code.

    With `flipped` the maps of the image and of its mirror image are averaged. Pixel x of a crop of width W
    mirrors to W - 1 - x, so cell i of w to w - i - 1/stride. Reversing the cells gives w - 1 - i. So the reversed maps
    are moved to the right by 1 - 1/stride of a cell, between two cells linearly. HRNet's release moves them by one
    cell, which at stride 4 leaves the average 1/8 of a cell off, at stride 2 1/4. (DARK's own release crops with
    another alignment, under which nothing moves.)

    Args:
        heatmaps: (B, J, h, w), floating point.
        input_size: (height, width) of the crop in pixels.
        flipped: heatmaps of the mirrored image and the permutation (J,) int64 of its joints: joint j's
            counterpart is joint permutation[j].
        to_image: (B, 2, 3) affine maps from the crop's pixels to the full image's.
        method: "quarter" or "dark".
        blur_kernel: cells of DARK's blur, odd and at least 3, with OpenCV's standard deviation for it; None takes the
            published size for the longer side of the map: 3 up to 32 cells, 11 up to 64, else 17.

    Returns:
        Keypoints (B, J, 2) as (x, y) in pixels of the crop, or of the image with `to_image`, and scores (B, J):
        float32, or float64 if the heatmaps are. A score is the height of the map's maximum, trained towards
        1 and not confined to [0, 1]: it is no probability. Ties go to the first cell, row by row. A NaN in
        a map makes its keypoint and score NaN.

    Raises:
        TypeError: something is no tensor or not of a fitting type.
        InputError: shapes that do not fit, an unknown method, a blur kernel that is even or too small.
    """
    check_tensor("heatmaps", heatmaps, ("B", "J", "h", "w"))
    B, _, h, w = heatmaps.shape
    check(h > 0 and w > 0, "heatmaps", tuple(heatmaps.shape), "at least one cell")
    check(min(input_size) > 0, "input_size", input_size, "positive (height, width)")
    check_option("method", method, DECODINGS)
    stride = (input_size[1] / w, input_size[0] / h)
    maps = heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32))
    if flipped is not None:
        mirrored, permutation = _checked_flip(flipped, heatmaps)
        maps = (maps + _unmirror(mirrored.to(maps.dtype), permutation, 1 - 1 / stride[0])) / 2

    flat = maps.flatten(2)
    place = flat.argmax(-1)  # (B, J)
    scores = flat.gather(-1, place[..., None])[..., 0]
    found = scores > 0
    x, y = torch.where(found, place % w, 0), torch.where(found, place // w, 0)
    quarter = method == "quarter"
    offset = _quarter_offset(maps, x, y) if quarter else _taylor_offset(maps, scores, x, y, blur_kernel)
    cells = torch.stack([x, y], -1) + torch.where(found[..., None], offset, 0)
    cells = torch.where(scores.isnan()[..., None], math.nan, cells)
    keypoints = cells * maps.new_tensor(stride)
    if to_image is not None:
        check_tensor("to_image", to_image, (B, 2, 3))
        affine = to_image.to(maps.dtype)
        keypoints = keypoints @ affine[:, :, :2].mT + affine[:, None, :, 2]
    return keypoints, scores


def _checked_flip(flipped: tuple[Tensor, Tensor], heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    check_type("flipped", flipped, (tuple, list), "(heatmaps, permutation)")
    check(len(flipped) == 2, "flipped", f"{len(flipped)} values", "(heatmaps, permutation)")
    check_tensor("flipped[0]", flipped[0], tuple(heatmaps.shape))
    check_permutation(flipped[1], heatmaps.shape[1])
    return flipped[0], flipped[1]


def _unmirror(heatmaps: Tensor, permutation: Tensor, shift: float) -> Tensor:
    """The maps of a mirrored image, mirrored back and moved to the right by a part of a cell; the border's cells go on."""
    back, whole = heatmaps[:, permutation].flip(-1), math.floor(shift)
    columns = torch.arange(back.shape[-1], device=back.device) - whole
    left, right = (back[..., at.clamp(0, back.shape[-1] - 1)] for at in (columns - 1, columns))
    return right.lerp(left, shift - whole)


def _around(maps: Tensor, x: Tensor, y: Tensor, steps: Sequence[tuple[int, int]]) -> Tensor:
    """Values (B, J, n) at n steps (right, down) from cells x, y (B, J); those outside of the map are moved inside."""
    h, w = maps.shape[2:]
    right, down = torch.tensor(steps, device=maps.device).unbind(-1)
    columns, rows = (x[..., None] + right).clamp(0, w - 1), (y[..., None] + down).clamp(0, h - 1)
    return maps.flatten(2).gather(-1, rows * w + columns)


def _quarter_offset(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    h, w = maps.shape[2:]
    inside = (x > 1) & (x < w - 1) & (y > 1) & (y < h - 1)
    slope = _around(maps, x, y, ((1, 0), (0, 1))) - _around(maps, x, y, ((-1, 0), (0, -1)))
    return torch.where(inside[..., None], 0.25 * slope.sign(), 0)


def _taylor_offset(maps: Tensor, heights: Tensor, x: Tensor, y: Tensor, kernel: int | None) -> Tensor:
    """-H⁻¹·∇ of the logarithm of the blurred maps, which are scaled back to their heights (B, J)."""
    h, w = maps.shape[2:]
    inside = (x > 1) & (x < w - 2) & (y > 1) & (y < h - 2)
    blurred = _blurred(maps, kernel)
    lowered = blurred.amax((2, 3))
    scale = torch.where(lowered > 0, heights / lowered, 1)
    near = (_around(blurred, x, y, list(_DERIVATIVES)) * scale[..., None]).clamp(min=1e-10).log()
    weights = near.new_tensor(list(_DERIVATIVES.values())) / 4
    dx, dy, dxx, dyy, dxy = (near @ weights).unbind(-1)
    determinant = dxx * dyy - dxy**2
    usable = inside & (determinant != 0)
    divisor = torch.where(usable, determinant, 1)
    offset = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / divisor[..., None]
    # NaN is in no map either
    across, down = x + offset[..., 0], y + offset[..., 1]
    usable &= (across >= 0) & (across <= w - 1) & (down >= 0) & (down <= h - 1)
    return torch.where(usable[..., None], offset, 0)


def _blurred(maps: Tensor, kernel: int | None) -> Tensor:
    h, w = maps.shape[2:]
    if kernel is None:
        kernel = 3 if max(h, w) <= 32 else 11 if max(h, w) <= 64 else 17
    check(
        isinstance(kernel, int) and kernel >= 3 and kernel % 2 == 1,
        "blur_kernel",
        kernel,
        "an odd number of at least 3",
    )
    weights = _gaussian_kernel(kernel, maps)
    # products of matrices: convolutions of one channel leave most of a processor idle
    return _band(weights, h) @ maps @ _band(weights, w)


def _band(weights: Tensor, size: int) -> Tensor:
    """The symmetric matrix (size, size) that blurs a row of cells, with zeros beyond its ends."""
    cells = torch.arange(size, device=weights.device)
    at = cells - cells[:, None] + len(weights) // 2
    return torch.where((at >= 0) & (at < len(weights)), weights[at.clamp(0, len(weights) - 1)], 0)


def _gaussian_kernel(size: int, like: Tensor) -> Tensor:
    """The weights of cv2.GaussianBlur with a standard deviation of 0, which means: from the size."""
    if size in _SMALL_KERNELS:
        return like.new_tensor(_SMALL_KERNELS[size])
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    distance = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    weights = torch.exp(-(distance**2) / (2 * sigma**2))
    return weights / weights.sum()
