"""From SimCC logits to keypoints."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cdkd_ext._checks import check, check_option, check_type, fail
from cdkd_ext.ops import _library  # noqa: F401  (registers the op)
from cdkd_ext.ops._autograd import accumulator_type, no_derivative
from cdkd_ext.ops._tensors import check_floating, check_rows, check_same_device, checked


def _check(
    logits_x: Tensor,
    logits_y: Tensor,
    split_ratio: float,
    *,
    flipped: tuple[Tensor, Tensor, Tensor] | None = None,
    to_image: Tensor | None = None,
    score: str = "min",
) -> None:
    check_rows("logits_x", logits_x)
    check_rows("logits_y", logits_y)
    if logits_x.dim() != 3:
        fail("logits_x", tuple(logits_x.shape), "shape (B, J, bins)")
    B, J, _ = logits_x.shape
    if logits_y.dim() != 3 or logits_y.shape[:2] != (B, J):
        fail("logits_y", tuple(logits_y.shape), f"shape ({B}, {J}, bins)")
    check_same_device("logits_y", logits_y, logits_x)
    check_type("split_ratio", split_ratio, (int, float), "a number")
    check(0 < split_ratio < math.inf, "split_ratio", split_ratio, "a positive finite number")
    check_option("score", score, ("min", "max", "mean"))
    if flipped is not None:
        _check_flipped(flipped, logits_x, logits_y)
    if to_image is not None:
        check_floating("to_image", to_image)
        if to_image.shape != (B, 2, 3):
            fail("to_image", tuple(to_image.shape), f"shape ({B}, 2, 3)")
        check_same_device("to_image", to_image, logits_x)


def simcc_decode(
    logits_x: Tensor,
    logits_y: Tensor,
    split_ratio: float,
    *,
    flipped: tuple[Tensor, Tensor, Tensor] | None = None,
    to_image: Tensor | None = None,
    score: str = "min",
) -> tuple[Tensor, Tensor]:
    """Decode keypoints as the most probable bins of both axes, and score them.

    With `flipped` the softmaxes of the picture and of its mirror image are averaged. Pixel x of a crop of
    width W mirrors to W - 1 - x, so bin i to k·(W - 1) - i = N - k - i: not to N - 1 - i, which is k - 1 bins
    off. (A fractional k·(W - 1) is rounded half to even.) The last k - 1 bins have no mirror image and keep
    half of their own probability.

    Args:
        logits_x: (B, J, N_x), float32, float64, bfloat16 or float16.
        logits_y: (B, J, N_y).
        split_ratio: k, bins per pixel.
        flipped: logits_x and logits_y of the mirrored image, and the permutation (J,) int64 of its joints:
            joint j's counterpart is joint permutation[j].
        to_image: (B, 2, 3) affine maps from the crop's pixels to the full image's.
        score: "min", "max" or "mean" of the two axes' probabilities.

    Returns:
        Keypoints (B, J, 2) as (x, y) in pixels of the crop, or of the image with `to_image`, and scores (B,
        J) in [0, 1]: float32, or float64 if the logits are. Ties go to the lowest bin. A NaN in either axis
        makes a joint's keypoint and score NaN.

    Raises:
        TypeError: something is no tensor or not of a fitting type.
        ValueError: shapes that do not fit, an unknown score, split_ratio <= 0, tensors on different devices.
    """
    return checked(
        _check, _op, logits_x, logits_y, split_ratio, flipped=flipped, to_image=to_image, score=score
    )


_op = torch.ops.cdkd.simcc_decode.default


def _check_flipped(flipped: tuple[Tensor, Tensor, Tensor], logits_x: Tensor, logits_y: Tensor) -> None:
    check_type("flipped", flipped, (tuple, list), "(logits_x, logits_y, permutation)")
    check(len(flipped) == 3, "flipped", f"{len(flipped)} values", "(logits_x, logits_y, permutation)")
    for position, like in enumerate((logits_x, logits_y)):
        argument, value = f"flipped[{position}]", flipped[position]
        check_floating(argument, value)
        check(value.shape == like.shape, argument, tuple(value.shape), f"shape {tuple(like.shape)}")
        check_same_device(argument, value, like)
    permutation, joints = flipped[2], logits_x.shape[1]
    check_type("flipped[2]", permutation, Tensor, "a torch.Tensor")
    if permutation.dtype != torch.int64:
        raise TypeError(f"flipped[2]: expected int64, got {permutation.dtype}")
    check(permutation.shape == (joints,), "flipped[2]", tuple(permutation.shape), f"shape ({joints},)")
    check_same_device("flipped[2]", permutation, logits_x)
    if permutation.is_cpu and not torch.compiler.is_compiling():
        joint = permutation.tolist()
        check(
            sorted(joint) == list(range(joints)), "flipped[2]", joint, f"a permutation of 0 to {joints - 1}"
        )


@torch.library.register_fake("cdkd::simcc_decode")
def _fake(
    logits_x: Tensor,
    logits_y: Tensor,
    split_ratio: float,
    flipped: list[Tensor] | None = None,
    to_image: Tensor | None = None,
    score: str = "min",
) -> tuple[Tensor, Tensor]:
    B, J, _ = logits_x.shape
    dtype = accumulator_type(logits_x, logits_y)
    return logits_x.new_empty((B, J, 2), dtype=dtype), logits_x.new_empty((B, J), dtype=dtype)


no_derivative("simcc_decode")
