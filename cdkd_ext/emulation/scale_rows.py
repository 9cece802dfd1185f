"""The backward pass of row losses on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes
from typing import ClassVar

import numpy as np

from cdkd_ext.emulation.library import (
    Emulation,
    Mirror,
    MutableRows,
    Rows,
    mutable_rows,
    pointer,
    rows,
    unset,
)
from cdkd_ext.emulation.passes import Pass, done


class ScaleRows(Mirror):
    """The struct of this name in csrc/ops/scale_rows/arguments.h."""

    _fields_: ClassVar = [
        ("unscaled", Rows),
        ("scale", Rows),
        ("scale_step", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("wide", ctypes.c_bool),
        ("scaled", MutableRows),
        ("weighted", Rows),
        ("partials", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
    ]


def scale_rows(
    emulation: Emulation,
    unscaled: np.ndarray,
    scale: np.ndarray,
    weighted: np.ndarray | None = None,
    *,
    sums: bool | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale rows, and sum what is weighted.

    Args:
        emulation: the kernels.
        unscaled: (R, N).
        scale: (R,), or () for all rows.
        weighted: (R,).
        sums: whether the sum is wanted; None where there is a `weighted`. Without one it is 0.

    Returns:
        (R, N), and Σ weighted · scale as (1,) where it is wanted.
    """
    scaled = unset(unscaled.shape, unscaled.dtype)
    wanted = weighted is not None if sums is None else sums
    partials = unset((1024,), np.float64) if wanted else None
    total = unset((1,), np.float64) if wanted else None
    call = ScaleRows(
        rows(unscaled),
        rows(scale, scalars=True),
        scale.ndim,
        unscaled.shape[0],
        np.float64 in (unscaled.dtype, scale.dtype),
        mutable_rows(scaled),
        rows(weighted, scalars=True),
        pointer(partials),
        pointer(total),
    )
    emulation.call("scale_rows", call)
    return scaled, total


def plan_backward(
    emulation: Emulation, name: str, unscaled: np.ndarray, weighted: np.ndarray | None = None
) -> Pass:
    """Return the pass that scales the gradients of row losses."""
    accumulator = np.float64 if unscaled.dtype == np.float64 else np.float32
    gradient = np.ones(len(unscaled), accumulator)
    scaled, total = scale_rows(emulation, unscaled, gradient, weighted)
    return done(emulation, name, unscaled, gradient, weighted, scaled, total)
