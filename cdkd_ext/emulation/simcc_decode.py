"""simcc_decode on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from cdkd_ext.emulation.library import Emulation, Mirror, Rows, pointer, rows, unset
from cdkd_ext.emulation.passes import LaunchSizes, Pass, done, random

POSITION = 3  # in the launch plan


class DecodeAxis(Mirror):
    """The struct of this name in csrc/ops/simcc_decode/arguments.h."""

    _fields_: ClassVar = [("logits", Rows), ("mirrored", Rows)]


class SimccDecode(Mirror):
    """The struct of this name in csrc/ops/simcc_decode/arguments.h."""

    _fields_: ClassVar = [
        ("x", DecodeAxis),
        ("y", DecodeAxis),
        ("mirror_sum", ctypes.c_int64),
        ("permutation", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("joints", ctypes.c_int64),
        ("split_ratio", ctypes.c_double),
        ("to_image", Rows),
        ("score", ctypes.c_int32),
        ("wide", ctypes.c_bool),
        ("keypoints", ctypes.c_void_p),
        ("scores", ctypes.c_void_p),
    ]


def simcc_decode(
    emulation: Emulation,
    logits_x: np.ndarray,
    logits_y: np.ndarray,
    split_ratio: float,
    *,
    flipped: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    mirror_sum: int = 0,
    to_image: np.ndarray | None = None,
    score: str = "min",
) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints (B, J, 2) and scores (B, J); `mirror_sum` is that of an x bin and its mirror image."""
    wide = np.float64 in (logits_x.dtype, logits_y.dtype)
    accumulator = np.float64 if wide else np.float32
    B, J, _ = logits_x.shape
    keypoints, scores = unset((B, J, 2), accumulator), unset((B, J), accumulator)
    mirrored_x, mirrored_y, permutation = flipped or (None, None, None)
    affine = None if to_image is None else to_image.reshape(B, 6)
    call = SimccDecode(
        DecodeAxis(rows(logits_x), rows(mirrored_x)),
        DecodeAxis(rows(logits_y), rows(mirrored_y)),
        mirror_sum,
        pointer(permutation),
        B,
        J,
        split_ratio,
        rows(affine),
        ("min", "max", "mean").index(score),
        wide,
        pointer(keypoints),
        pointer(scores),
    )
    emulation.call("simcc_decode", call)
    return keypoints, scores


def plan(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    """Yield the passes of the launch plan."""
    shape = (sizes.batch, sizes.joints, sizes.student_bins)
    x, y, mirrored_x, mirrored_y = (random(seed, shape, sizes.dtype) for seed in range(4))
    to_image = random(4, (sizes.batch, 2, 3), "float32")
    permutation = np.arange(sizes.joints)[::-1].copy()
    emulation.clear_launches()
    keypoints, scores = simcc_decode(emulation, x, y, 2.0, to_image=to_image)
    yield done(emulation, "simcc_decode", x, y, to_image, keypoints, scores)
    simcc_decode(
        emulation,
        x,
        y,
        2.0,
        flipped=(mirrored_x, mirrored_y, permutation),
        mirror_sum=sizes.student_bins - 2,
        to_image=to_image,
    )
    moved = (x, y, mirrored_x, mirrored_y, permutation, to_image, keypoints, scores)
    yield done(emulation, "simcc_decode with flip test", *moved)
