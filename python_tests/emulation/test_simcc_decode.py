from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_values import TYPES, convert, exact, normal

from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.simcc_decode import simcc_decode


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference(
    x: np.ndarray,
    y: np.ndarray,
    split_ratio: float,
    flipped: Any = None,
    mirror_sum: int = 0,
    to_image: np.ndarray | None = None,
    score: str = "min",
) -> tuple[np.ndarray, np.ndarray]:
    p_x, p_y = softmax(exact(x)), softmax(exact(y))
    if flipped is not None:
        mirrored_x, mirrored_y, permutation = flipped
        source = mirror_sum - np.arange(x.shape[-1])
        inside = (source >= 0) & (source < x.shape[-1])
        q_x = softmax(exact(mirrored_x))[:, permutation][..., source.clip(0, x.shape[-1] - 1)]
        p_x = (p_x + np.where(inside, q_x, 0)) / 2
        p_y = (p_y + softmax(exact(mirrored_y))[:, permutation]) / 2
    keypoints = np.stack((p_x.argmax(-1), p_y.argmax(-1)), -1) / split_ratio
    peaks = p_x.max(-1), p_y.max(-1)
    scores = {"min": np.minimum, "max": np.maximum, "mean": lambda a, b: (a + b) / 2}[score](*peaks)
    if to_image is not None:
        affine = exact(to_image)
        keypoints = keypoints @ affine[:, :, :2].swapaxes(1, 2) + affine[:, None, :, 2]
    return keypoints, scores


def check(run: Any, x: np.ndarray, y: np.ndarray, split_ratio: float, **options: Any) -> None:
    keypoints, scores = run(simcc_decode, x, y, split_ratio, **options)
    expected = reference(x, y, split_ratio, **options)
    tolerance = 1e-10 if keypoints.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(keypoints, expected[0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(scores, expected[1], rtol=tolerance)


def peaked(seed: int, *shape: int, dtype: str) -> np.ndarray:
    """Logits with one clear peak a row, so that rounding cannot move it."""
    logits = normal(seed, *shape)
    peak = np.random.default_rng(seed + 9).integers(0, shape[-1], shape[:-1])
    np.put_along_axis(logits, peak[..., None], 8.0, -1)
    return convert(logits, dtype)


SIZES = [
    (1, 1, 1, 1),
    (3, 1, 31, 2),
    (1, 133, 29, 37),
    (2, 17, 192, 256),
    (1, 3, 1021, 4096),
    (2, 5, 33, 257),
]


@pytest.mark.parametrize("score", ["min", "max", "mean"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("batch", "joints", "bins_x", "bins_y"), SIZES)
def test_agrees_with_float64(
    run: Any, batch: int, joints: int, bins_x: int, bins_y: int, dtype: str, score: str
) -> None:
    x, y = peaked(0, batch, joints, bins_x, dtype=dtype), peaked(1, batch, joints, bins_y, dtype=dtype)
    to_image = normal(2, batch, 2, 3, dtype="float64") if score == "mean" else None
    check(run, x, y, 2.0, score=score, to_image=to_image)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("batch", "joints", "bins_x", "bins_y"), SIZES)
def test_with_the_mirrored_image(
    run: Any, batch: int, joints: int, bins_x: int, bins_y: int, dtype: str
) -> None:
    x, y = peaked(0, batch, joints, bins_x, dtype=dtype), peaked(1, batch, joints, bins_y, dtype=dtype)
    mirrored = [peaked(2, batch, joints, bins_x, dtype=dtype), peaked(3, batch, joints, bins_y, dtype=dtype)]
    permutation = np.random.default_rng(4).permutation(joints)
    for mirror_sum in (bins_x - 3, bins_x - 1):
        check(run, x, y, 3.0, flipped=(*mirrored, permutation), mirror_sum=mirror_sum, score="max")


def test_mirrored_rows_beyond_shared_memory(run: Any) -> None:
    x, y = peaked(0, 1, 2, 6200, dtype="float32"), peaked(1, 1, 2, 40, dtype="float32")
    flipped = (peaked(2, 1, 2, 6200, dtype="float32"), peaked(3, 1, 2, 40, dtype="float32"), np.array([1, 0]))
    check(run, x, y, 1.0, flipped=flipped, mirror_sum=6199)


def test_more_joints_than_warps(emulation: Emulation) -> None:
    x, y = peaked(0, 1000, 17, 3, dtype="float32"), peaked(1, 1000, 17, 2, dtype="float32")
    emulation.configure()
    keypoints, scores = simcc_decode(emulation, x, y, 1.0)
    expected = reference(x, y, 1.0)
    np.testing.assert_array_equal(keypoints, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-5)


@pytest.mark.parametrize("where", [(7, 19, 33), (0, 39), (31, 32)])
def test_ties_go_to_the_lowest_bin(run: Any, where: tuple[int, ...]) -> None:
    x, y = np.full((1, 1, 40), -30, np.float32), np.zeros((1, 1, 40), np.float32)
    x[..., list(where)] = 0
    keypoints, scores = run(simcc_decode, x, y, 1.0, score="max")
    assert keypoints.tolist() == [[[where[0], 0]]]
    np.testing.assert_allclose(scores, 1 / len(where), rtol=1e-6)
    mirrored = np.ascontiguousarray(x[..., ::-1])
    keypoints, _ = run(simcc_decode, x, y, 1.0, flipped=(mirrored, y, np.array([0])), mirror_sum=39)
    assert keypoints.tolist() == [[[where[0], 0]]]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_location_from_nonsense(emulation: Emulation, bad: float, flip: bool) -> None:
    emulation.configure()
    x, y = normal(0, 1, 5, 33), normal(1, 1, 5, 20)
    flipped = (normal(2, 1, 5, 33), normal(3, 1, 5, 20), np.array([0, 1, 3, 2, 9])) if flip else None
    x[0, 1, 7] = bad
    y[0, 2] = -np.inf
    x[0, 3, :30] = -np.inf  # excluded bins are no nonsense
    keypoints, scores = simcc_decode(emulation, x, y, 2.0, flipped=flipped, mirror_sum=31)
    hurt = [False, True, True, False, flip]  # the last one's counterpart is no joint
    assert np.isnan(keypoints).all(-1).tolist() == [hurt]
    assert np.isnan(scores).tolist() == [hurt]
    if not flip:
        assert keypoints[0, 3, 0] >= 15
