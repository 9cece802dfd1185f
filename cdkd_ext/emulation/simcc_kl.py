"""simcc_kl on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
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
from cdkd_ext.emulation.passes import LaunchSizes, Pass, done, random
from cdkd_ext.emulation.scale_rows import plan_backward

POSITION = 2  # in the launch plan


class SimccKl(Mirror):
    """The struct of this name in csrc/ops/simcc_kl/arguments.h."""

    _fields_: ClassVar = [
        ("logits", Rows),
        ("target", Rows),
        ("rows", ctypes.c_int64),
        ("smoothing", ctypes.c_double),
        ("sigma", ctypes.c_double),
        ("wide", ctypes.c_bool),
        ("loss", ctypes.c_void_p),
        ("gradient", MutableRows),
    ]


def simcc_kl(
    emulation: Emulation,
    logits: np.ndarray,
    target: np.ndarray,
    *,
    label_smoothing: float = 0.0,
    sigma: float = 0.0,
    wants_gradient: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return loss (R,) and gradient (R, N) for logits (R, N) and bin coordinates (R,); sigma 0: hard labels."""
    wide = logits.dtype == np.float64
    loss = unset(target.shape, np.float64 if wide else np.float32)
    gradient = unset(logits.shape, logits.dtype) if wants_gradient else None
    call = SimccKl(
        rows(logits),
        rows(target, scalars=True),
        logits.shape[0],
        label_smoothing if logits.shape[1] > 1 else 0.0,
        sigma,
        wide,
        pointer(loss),
        mutable_rows(gradient),
    )
    emulation.call("simcc_kl", call)
    return loss, gradient


def plan(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    """Yield the passes of the launch plan."""
    rows = sizes.batch * sizes.joints
    logits = random(0, (rows, sizes.student_bins), sizes.dtype)
    target = np.random.default_rng(1).uniform(0, sizes.student_bins - 1, rows).astype(np.float32)
    emulation.clear_launches()
    loss, _ = simcc_kl(emulation, logits, target, sigma=2.0, wants_gradient=False)
    yield done(emulation, "simcc_kl", logits, target, loss)
    loss, gradient = simcc_kl(emulation, logits, target, sigma=2.0)
    yield done(emulation, "simcc_kl with gradients", logits, target, loss, gradient)
    assert gradient is not None
    yield plan_backward(emulation, "simcc_kl backward", gradient)
