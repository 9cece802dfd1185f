"""Heatmap targets and decoding, against plain loops that follow the published procedures."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdkd_ext.codecs import (
    HeatmapCodec,
    HeatmapOutput,
    decode_heatmaps,
    heatmap_sigma,
    heatmap_targets,
)
from cdkd_ext.errors import InputError


def target_by_loops(
    joint: tuple[float, float], stride: tuple[float, float], h: int, w: int, sigma: float, quantized: bool
) -> tuple[np.ndarray, float]:
    """One joint's map and weight as in HRNet's (or DARK's) data set, cell by cell."""
    mu = [joint[axis] / stride[axis] for axis in (0, 1)]
    if quantized:
        mu = [int(value + 0.5) for value in mu]
    reach = 3 * sigma
    low = [int(value - reach) for value in mu]
    high = [int(value + reach + 1) for value in mu]
    values = np.zeros((h, w))
    if low[0] >= w or low[1] >= h or high[0] < 0 or high[1] < 0:
        return values, 0.0
    for y in range(h):
        for x in range(w):
            inside = abs(x - mu[0]) <= reach and abs(y - mu[1]) <= reach
            if inside or not quantized:
                values[y, x] = math.exp(-((x - mu[0]) ** 2 + (y - mu[1]) ** 2) / (2 * sigma**2))
    return values, 1.0


@given(
    st.lists(st.tuples(st.floats(-60, 100), st.floats(-60, 140)), min_size=1, max_size=4),
    st.sampled_from([1.0, 2.0]),
    st.booleans(),
)
@settings(max_examples=30)
def test_targets_against_plain_loops(
    joints: list[tuple[float, float]], sigma: float, quantized: bool
) -> None:
    keypoints = torch.tensor([joints], dtype=torch.float64)
    weights = torch.ones(1, len(joints), dtype=torch.float64)
    targets, used = heatmap_targets(keypoints, weights, (48, 32), (12, 8), sigma, quantized=quantized)
    for j, joint in enumerate(joints):
        expected, weight = target_by_loops(joint, (4, 4), 12, 8, sigma, quantized)
        assert used[0, j] == weight
        np.testing.assert_allclose(targets[0, j], expected, atol=1e-12)


def test_golden_target() -> None:
    """A joint at pixel (9, 6) of a 64x64 crop is nearest to cell (2, 2) of 16x16."""
    targets, used = heatmap_targets(
        torch.tensor([[[9.0, 6.0]]]), torch.ones(1, 1), (64, 64), (16, 16), sigma=1.0
    )
    assert used.item() == 1
    row = targets[0, 0, 2]
    torch.testing.assert_close(
        row[:7], torch.tensor([0.13534, 0.60653, 1, 0.60653, 0.13534, 0.01111, 0]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(targets[0, 0], targets[0, 0].T)
    centred, _ = heatmap_targets(
        torch.tensor([[[9.0, 6.0]]]), torch.ones(1, 1), (64, 64), (16, 16), sigma=1.0, quantized=False
    )
    assert centred[0, 0, 2, 2].item() == pytest.approx(math.exp(-(0.25**2 + 0.5**2) / 2))
    assert (centred > 0).sum() > (targets > 0).sum()


@pytest.mark.parametrize("quantized", [True, False])
def test_a_place_that_is_no_number_is_no_target(quantized: bool) -> None:
    keypoints = torch.tensor([[[math.nan, 6.0], [9.0, 6.0]]])
    targets, used = heatmap_targets(keypoints, torch.ones(1, 2), (64, 64), (16, 16), 1.0, quantized=quantized)
    assert used.tolist() == [[0, 1]] and (targets[0, 0] == 0).all() and targets[0, 1].max() > 0.8


def test_the_nearest_cell_is_found_by_truncation() -> None:
    """int(x / stride + 0.5): halves go up, and a joint up to a cell and a half left of the map still to cell 0."""
    keypoints = torch.tensor([[[2.0, 10.0], [-5.0, 6.0]]], dtype=torch.float64)
    targets, _ = heatmap_targets(keypoints, torch.ones(1, 2), (32, 32), (8, 8), 1.0)
    assert targets[0, 0, 3, 1] == 1 and targets[0, 1, 2, 0] == 1


def test_a_joint_without_weight_may_be_anywhere() -> None:
    keypoints = torch.tensor([[[math.nan, math.inf], [8.0, 8.0]]])
    targets, used = heatmap_targets(keypoints, torch.tensor([[0.0, 0.5]]), (32, 32), (8, 8), 1.0)
    assert targets.isfinite().all() and targets[0, 0].abs().sum() == 0
    assert used.tolist() == [[0.0, 0.5]] and targets[0, 1, 2, 2] == 1


@pytest.mark.parametrize(
    ("size", "sigma"),
    [
        ((64, 64), 2.0),
        ((64, 48), 2.0),
        ((96, 72), 3.0),
        ((32, 32), 1.0),
        ((32, 24), 1.0),
        ((16, 16), 1.0),
        ((8, 8), 1.0),
    ],
)
def test_published_sigmas(size: tuple[int, int], sigma: float) -> None:
    assert heatmap_sigma(size) == sigma


def decode_by_loops(
    maps: np.ndarray,
    stride: float,
    method: str,
    kernel: int = 11,
    flipped: np.ndarray | None = None,
    permutation: list[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (B, J, 2) in pixels and scores (B, J), as the released evaluations go about it."""
    maps = maps.copy()
    B, J, h, w = maps.shape
    if flipped is not None:
        assert permutation is not None
        back = np.zeros_like(maps)
        for j in range(J):
            for x in range(w):
                back[:, j, :, x] = flipped[:, permutation[j], :, w - 1 - x]
        moved = back.copy()
        for x in range(w):
            moved[..., x] = back[..., x] / stride + back[..., max(x - 1, 0)] * (1 - 1 / stride)
        maps = (maps + moved) / 2
    keypoints, scores = np.zeros((B, J, 2)), np.zeros((B, J))
    for b in range(B):
        for j in range(J):
            one = maps[b, j]
            best, place = -math.inf, (0, 0)
            for y in range(h):
                for x in range(w):
                    if one[y, x] > best:
                        best, place = one[y, x], (x, y)
            scores[b, j] = best
            if best <= 0:
                continue
            x, y = place
            if method == "quarter" and 1 < x < w - 1 and 1 < y < h - 1:
                keypoints[b, j] = (
                    x + 0.25 * np.sign(one[y, x + 1] - one[y, x - 1]),
                    y + 0.25 * np.sign(one[y + 1, x] - one[y - 1, x]),
                )
            elif method == "dark" and 1 < x < w - 2 and 1 < y < h - 2:
                border = kernel // 2
                blurred = cv2.GaussianBlur(np.pad(one, border), (kernel, kernel), 0)
                blurred = blurred[border:-border, border:-border]
                g = np.log(np.maximum(blurred * best / blurred.max(), 1e-10))
                gradient = np.array([g[y, x + 1] - g[y, x - 1], g[y + 1, x] - g[y - 1, x]]) / 2
                dxx = (g[y, x + 2] - 2 * g[y, x] + g[y, x - 2]) / 4
                dyy = (g[y + 2, x] - 2 * g[y, x] + g[y - 2, x]) / 4
                dxy = (g[y + 1, x + 1] - g[y - 1, x + 1] - g[y + 1, x - 1] + g[y - 1, x - 1]) / 4
                hessian = np.array([[dxx, dxy], [dxy, dyy]])
                step = np.zeros(2)
                if np.linalg.det(hessian) != 0:
                    step = -np.linalg.solve(hessian, gradient)
                if not (0 <= x + step[0] <= w - 1 and 0 <= y + step[1] <= h - 1):
                    step = np.zeros(2)
                keypoints[b, j] = (x + step[0], y + step[1])
            else:
                keypoints[b, j] = (x, y)
    return keypoints * stride, scores


def noisy_peaks(generator: torch.Generator, batch: int, joints: int, h: int, w: int) -> torch.Tensor:
    """Gaussians anywhere, some beside the border, under a little noise."""
    places = torch.rand(batch, joints, 2, generator=generator, dtype=torch.float64) * torch.tensor([w, h])
    ones = torch.ones(batch, joints, dtype=torch.float64)
    maps, _ = heatmap_targets(places, ones, (h, w), (h, w), 1.7, quantized=False)
    noise = torch.rand(batch, joints, h, w, generator=generator, dtype=torch.float64)
    return maps + 0.05 * noise


@pytest.mark.parametrize("method", ["quarter", "dark"])
@pytest.mark.parametrize(
    ("h", "w", "kernel"), [(16, 12, 3), (20, 20, 5), (14, 30, 7), (48, 64, 11), (70, 20, 17)]
)
@pytest.mark.parametrize("flip", [False, True])
def test_decoding_against_plain_loops(method: str, h: int, w: int, kernel: int, flip: bool) -> None:
    generator = torch.Generator().manual_seed(h + w)
    maps, mirrored = (noisy_peaks(generator, 3, 4, h, w) for _ in range(2))
    permutation = [1, 0, 2, 3]
    if not flip:
        maps[0, 0] -= 2
    keypoints, scores = decode_heatmaps(
        maps,
        (4 * h, 4 * w),
        method=method,
        blur_kernel=kernel,
        flipped=(mirrored, torch.tensor(permutation)) if flip else None,
    )
    expected, heights = decode_by_loops(
        maps.numpy(), 4.0, method, kernel, mirrored.numpy() if flip else None, permutation
    )
    np.testing.assert_allclose(keypoints, expected, atol=1e-6)
    np.testing.assert_allclose(scores, heights, rtol=1e-12)
    if not flip:
        assert keypoints[0, 0].tolist() == [0, 0] and scores[0, 0] < 0


def test_default_blur_kernels_are_the_published_ones() -> None:
    for size, kernel in (((64, 48), 11), ((96, 72), 17), ((32, 24), 3), ((16, 16), 3)):
        generator = torch.Generator().manual_seed(0)
        maps = noisy_peaks(generator, 1, 3, *size)
        crop = (4 * size[0], 4 * size[1])
        default = decode_heatmaps(maps, crop, method="dark")[0]
        torch.testing.assert_close(default, decode_heatmaps(maps, crop, method="dark", blur_kernel=kernel)[0])
        other = decode_heatmaps(maps, crop, method="dark", blur_kernel=kernel + 2)[0]
        assert not torch.equal(default, other)


@pytest.mark.parametrize("kernel", [3, 11])
def test_dark_does_not_leave_the_map(kernel: int) -> None:
    """Of a network that has hardly learnt: noise around nothing, whose expansions have their maxima anywhere."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(20, 14, 16, 16, generator=generator, dtype=torch.float64) * 1e-3 + 2e-3
    keypoints, _ = decode_heatmaps(maps, (32, 32), method="dark", blur_kernel=kernel)
    assert keypoints.min() >= 0 and keypoints.max() <= 30
    expected, _ = decode_by_loops(maps.numpy(), 2.0, "dark", kernel, None, list(range(14)))
    np.testing.assert_allclose(keypoints, expected, atol=1e-6)


def test_dark_scales_blurred_maps_back_before_it_cuts_what_is_too_low() -> None:
    """The released code's 1e-10 is a height of maps as high as they were."""
    maps = 3e-10 * noisy_peaks(torch.Generator().manual_seed(0), 4, 6, 16, 16)
    keypoints, _ = decode_heatmaps(maps, (32, 32), method="dark", blur_kernel=3)
    expected, _ = decode_by_loops(maps.numpy(), 2.0, "dark", 3)
    np.testing.assert_allclose(keypoints, expected, atol=1e-6)


def test_golden_decoding() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 3, 4] = 0.9
    maps[0, 0, 3, 5] = 0.5
    maps[0, 0, 2, 4] = 0.4
    keypoints, scores = decode_heatmaps(maps, (32, 32))
    assert keypoints.tolist() == [[[17.0, 11.0]]]
    assert scores.item() == pytest.approx(0.9)
    assert keypoints.dtype == scores.dtype == torch.float32


def test_dark_finds_the_centre_of_a_gaussian_that_lies_between_cells() -> None:
    true = torch.tensor([[[30.3, 41.9], [25.1, 20.6]]], dtype=torch.float64)
    ones = torch.ones(1, 2, dtype=torch.float64)
    maps, _ = heatmap_targets(true, ones, (64, 64), (64, 64), 2.0, quantized=False)
    dark, _ = decode_heatmaps(maps, (64, 64), method="dark")
    torch.testing.assert_close(dark, true, atol=0.02, rtol=0)
    quarter, _ = decode_heatmaps(maps, (64, 64))
    assert (quarter - true).abs().max() > 0.05


@pytest.mark.parametrize("stride", [0.5, 1, 1.5, 2, 4, 8])
def test_flip_test_of_a_perfect_network_is_exact_at_every_stride(stride: float) -> None:
    """The mirrored picture's joint is at W - 1 - x; HRNet's whole cell would leave half a pixel after averaging."""
    cells, width = 48, int(48 * stride)
    points = torch.rand(1, 20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joints = (points * 0.6 + 0.2) * width
    ones = torch.ones(1, 20, dtype=torch.float64)
    mirrored = torch.stack([width - 1 - joints[..., 0], joints[..., 1]], -1)
    maps, back = (
        heatmap_targets(at, ones, (width, width), (cells, cells), 2.0, quantized=False)[0]
        for at in (joints, mirrored)
    )
    flipped = (back, torch.arange(20))
    keypoints, scores = decode_heatmaps(maps, (width, width), flipped=flipped, method="dark")
    # linear between two cells: a Gaussian of two cells becomes hardly wider
    torch.testing.assert_close(keypoints, joints, atol=0.02 * stride, rtol=0)
    assert scores.min() > 0.9
    keypoints, _ = decode_heatmaps(maps, (width, width), flipped=flipped)
    error = (keypoints - joints)[..., 0] / stride
    assert abs(error.mean()) < 0.1 and error.abs().max() < 0.35


def test_no_shift_where_a_cell_is_a_pixel() -> None:
    maps = torch.zeros(1, 2, 6, 9)
    maps[0, 0, 3, 3] = 1
    maps[0, 1, 2, 6] = 1
    flipped = (maps.flip(-1)[:, [1, 0]], torch.tensor([1, 0]))
    keypoints, scores = decode_heatmaps(maps, (6, 9), flipped=flipped)
    assert keypoints.tolist() == [[[3, 3], [6, 2]]]
    assert scores.tolist() == [[1, 1]]


def test_into_the_picture() -> None:
    maps = torch.zeros(2, 1, 8, 8)
    maps[:, 0, 6, 7] = 1
    affine = torch.tensor([[[2.0, 0.0, 5.0], [0.0, 3.0, -1.0]], [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]])
    keypoints, _ = decode_heatmaps(maps, (32, 16), to_image=affine)
    assert keypoints.tolist() == [[[2 * 14 + 5.0, 3 * 24 - 1.0]], [[24.0, -14.0]]]


def test_ties_go_to_the_first_cell_and_nan_stays_in_its_map() -> None:
    maps = torch.ones(1, 3, 6, 6)
    maps[0, 1, 3, 3] = math.nan
    for method in ("quarter", "dark"):
        keypoints, scores = decode_heatmaps(maps, (6, 6), method=method)
        assert keypoints[0, [0, 2]].tolist() == [[0, 0], [0, 0]] and scores[0, [0, 2]].tolist() == [1, 1]
        assert keypoints[0, 1].isnan().all() and scores[0, 1].isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_and_other_layouts(dtype: torch.dtype) -> None:
    maps = noisy_peaks(torch.Generator().manual_seed(3), 2, 3, 16, 16).to(dtype)
    keypoints, scores = decode_heatmaps(maps.to(memory_format=torch.channels_last), (64, 64), method="dark")
    exact, heights = decode_heatmaps(maps.float(), (64, 64), method="dark")
    assert keypoints.dtype == torch.float32
    torch.testing.assert_close(keypoints, exact)
    torch.testing.assert_close(scores, heights)


def test_empty_batches_give_empty_results() -> None:
    for method in ("quarter", "dark"):
        keypoints, scores = decode_heatmaps(torch.zeros(0, 3, 8, 8), (32, 32), method=method)
        assert keypoints.shape == (0, 3, 2) and scores.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"heatmaps": torch.zeros(2, 3, 4)}, InputError, r"heatmaps: expected shape \(B, J, h, w\)"),
        ({"heatmaps": torch.zeros(1, 1, 4, 4).int()}, TypeError, "heatmaps: expected a floating-point tensor"),
        ({"heatmaps": torch.zeros(1, 2, 0, 4)}, InputError, "heatmaps: expected at least one cell"),
        ({"method": "mean"}, InputError, "method: expected one of 'quarter', 'dark'"),
        ({"method": "dark", "blur_kernel": 4}, InputError, "blur_kernel: expected an odd number"),
        ({"to_image": torch.zeros(1, 2, 2)}, InputError, r"to_image: expected shape \(1, 2, 3\)"),
        ({"flipped": torch.zeros(1)}, TypeError, r"flipped: expected \(heatmaps, permutation\)"),
        ({"flipped": (torch.zeros(1, 2, 4, 5), torch.tensor([0, 1]))}, InputError, r"flipped\[0\]: expected shape"),
        ({"flipped": (torch.zeros(1, 2, 4, 4), torch.tensor([0, 0]))}, InputError, "a permutation of 0 to 1"),
        ({"flipped": (torch.zeros(1, 2, 4, 4), torch.zeros(2))}, TypeError, r"flipped\[1\]: expected int64"),
    ],
)  # fmt: skip
def test_refusals(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"heatmaps": torch.zeros(1, 2, 4, 4), "input_size": (16, 16)} | change
    with pytest.raises(error, match=message):
        decode_heatmaps(arguments.pop("heatmaps"), arguments.pop("input_size"), **arguments)


@pytest.mark.parametrize("decoding", ["quarter", "dark"])
def test_the_codec_trains_towards_what_it_reads(decoding: str) -> None:
    codec = HeatmapCodec((64, 48), decoding)
    output = HeatmapOutput(torch.zeros(1, 2, 16, 12))
    assert codec.places_per_pixel(output) == (0.25, 0.25)
    keypoints = torch.tensor([[[20.0, 28.0], [21.2, 37.0]]])
    weights = torch.tensor([[1.0, 0.5]])
    targets, used = codec.targets(output, keypoints.half(), weights.half())
    expected = heatmap_targets(
        keypoints.half().float(), weights, (64, 48), (16, 12), 1.0, quantized=decoding == "quarter"
    )
    assert targets.dtype == torch.float32
    assert torch.equal(targets, expected[0]) and torch.equal(used, weights)
    found, heights = codec.decode(HeatmapOutput(targets))
    # to half a cell of four pixels, and DARK's step to a fraction of a pixel
    assert (found - keypoints).abs().max() < (2.5 if decoding == "quarter" else 0.3)
    assert heights.max() <= 1


def test_the_codec_refuses_an_unknown_decoding() -> None:
    with pytest.raises(InputError, match="decoding: expected one of 'quarter', 'dark'"):
        HeatmapCodec((32, 32), "taylor")
