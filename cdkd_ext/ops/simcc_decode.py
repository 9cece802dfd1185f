"""From SimCC logits to keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_option
from cdkd_ext.ops import _fast_path
from cdkd_ext.ops._derivative import no_derivative
from cdkd_ext.ops._library import register_fake
from cdkd_ext.ops._mistakes import named
from cdkd_ext.ops._tensors import accumulator_type, check_bins, check_device, check_positive, check_tensor
from cdkd_ext.ops._vmap import one_by_one


@named
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
        J) in [0, 1]: float32, or float64 if the logits are. Ties go to the lowest bin. A NaN or an infinity in either
        axis, or nothing but -inf, makes a joint's keypoint and score NaN. Neither has a derivative.

    Raises:
        TypeError: something is no tensor or not of a fitting type.
        ValueError: shapes that do not fit, an unknown score, split_ratio <= 0, tensors on different devices.

    Example:
        >>> x, y = torch.zeros(1, 2, 48), torch.zeros(1, 2, 64)
        >>> x[0, :, 30] = y[0, :, 20] = 9.0
        >>> keypoints, scores = simcc_decode(x, y, split_ratio=2.0)
        >>> keypoints.tolist()
        [[[15.0, 10.0], [15.0, 10.0]]]
    """
    compiling = torch.compiler.is_compiling()
    if compiling and _fast_path.is_transformed(logits_x, logits_y):
        raise RuntimeError(
            "cdkd: simcc_decode is not for compiled function transforms; decode outside of them"
        )
    if compiling or _fast_path.is_plain():
        return _op(logits_x, logits_y, split_ratio, flipped=flipped, to_image=to_image, score=score)
    if flipped is not None:
        _check_flipped(flipped)
    return _NoDerivative.apply(logits_x, logits_y, split_ratio, to_image, score, *(flipped or ()))


_op = torch.ops.cdkd.simcc_decode.default


def _decode(
    logits_x: Tensor,
    logits_y: Tensor,
    split_ratio: float,
    to_image: Tensor | None,
    score: str,
    *flipped: Tensor,
) -> tuple[Tensor, Tensor]:
    return _op(logits_x, logits_y, split_ratio, flipped=flipped or None, to_image=to_image, score=score)


class _NoDerivative(torch.autograd.Function):
    """The op as function transforms and dual numbers have to see it."""

    forward = staticmethod(_decode)
    vmap = staticmethod(one_by_one(_decode))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        _refuse()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> NoReturn:
        _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError("cdkd: simcc_decode has no derivative; detach the logits before decoding them")


@register_fake("simcc_decode")
def _fake(
    logits_x: Tensor,
    logits_y: Tensor,
    split_ratio: float,
    flipped: list[Tensor] | None = None,
    to_image: Tensor | None = None,
    score: str = "min",
) -> tuple[Tensor, Tensor]:
    _check(logits_x, logits_y, split_ratio, flipped, to_image, score)
    B, J, _ = logits_x.shape
    dtype = accumulator_type(logits_x, logits_y)
    return logits_x.new_empty((B, J, 2), dtype=dtype), logits_x.new_empty((B, J), dtype=dtype)


def _check(
    logits_x: Tensor,
    logits_y: Tensor,
    split_ratio: float,
    flipped: list[Tensor] | None,
    to_image: Tensor | None,
    score: str,
) -> None:
    check_bins("logits_x", logits_x)
    check_tensor("logits_x", logits_x, ("B", "J", "bins"))
    B, J, _ = logits_x.shape
    check_device("logits_y", logits_y, logits_x)
    check_bins("logits_y", logits_y)
    check_tensor("logits_y", logits_y, (B, J, "bins"))
    check_positive("split_ratio", split_ratio)
    check_option("score", score, ("min", "max", "mean"))
    if flipped is not None:
        _check_flipped(flipped)
        check_tensor("flipped[0]", flipped[0], logits_x.shape, like=logits_x)
        check_tensor("flipped[1]", flipped[1], logits_y.shape, like=logits_x)
        check_tensor("flipped[2]", flipped[2], (J,), like=logits_x, dtype=torch.int64)
    if to_image is not None:
        check_tensor("to_image", to_image, (B, 2, 3), like=logits_x)


def _check_flipped(flipped: Sequence[Tensor]) -> None:
    check(len(flipped) == 3, "flipped", f"{len(flipped)} values", "(logits_x, logits_y, permutation)")


no_derivative("simcc_decode")
