"""cca_kl on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes
import math
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

POSITION = 1  # in the launch plan


class CcaKl(Mirror):
    """The struct of this name in csrc/ops/cca_kl/arguments.h."""

    _fields_: ClassVar = [
        ("student", Rows),
        ("teacher", Rows),
        ("tau", Rows),
        ("weights", Rows),
        ("rows", ctypes.c_int64),
        ("offset_part", ctypes.c_double),
        ("offset_whole", ctypes.c_int32),
        ("probabilities", ctypes.c_bool),
        ("wide", ctypes.c_bool),
        ("loss", ctypes.c_void_p),
        ("student_gradient", MutableRows),
        ("tau_gradient", ctypes.c_void_p),
    ]


def cca_kl(
    emulation: Emulation,
    student: np.ndarray,
    teacher: np.ndarray,
    tau: np.ndarray,
    *,
    centered: bool = False,
    offset: float | None = None,
    weights: np.ndarray | None = None,
    probabilities: bool = False,
    wants_student: bool = True,
    wants_tau: bool = True,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return loss (R,), student gradient (R, N_s) and tau gradient (R,) for (R, N_s), (R, N_t) and ()."""
    wide = np.float64 in (student.dtype, teacher.dtype)
    accumulator = np.float64 if wide else np.float32
    count = student.shape[0]
    loss = unset((count,), accumulator)
    student_gradient = unset(student.shape, student.dtype) if wants_student else None
    tau_gradient = unset((count,), accumulator) if wants_tau else None
    bins = teacher.shape[1]
    if offset is None:
        offset = (bins / student.shape[1] - 1) / 2 if centered else 0.0
    offset = min(max(offset, -bins), bins)
    whole = math.floor(offset)
    call = CcaKl(
        rows(student),
        rows(teacher),
        rows(tau, scalars=True),
        rows(weights, scalars=True),
        count,
        offset - whole,
        whole,
        probabilities,
        wide,
        pointer(loss),
        mutable_rows(student_gradient),
        pointer(tau_gradient),
    )
    emulation.call("cca_kl", call)
    return loss, student_gradient, tau_gradient


def plan(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    """Yield the passes of the launch plan."""
    rows = sizes.batch * sizes.joints
    student = random(0, (rows, sizes.student_bins), sizes.dtype)
    teacher = random(1, (rows, sizes.teacher_bins), sizes.dtype)
    tau = np.array(1.5)
    emulation.clear_launches()
    loss, *_ = cca_kl(emulation, student, teacher, tau, wants_student=False, wants_tau=False)
    yield done(emulation, "cca_kl", student, teacher, tau, loss)
    loss, by_student, by_tau = cca_kl(emulation, student, teacher, tau)
    yield done(emulation, "cca_kl with gradients", student, teacher, tau, loss, by_student, by_tau)
    weights = np.arange(rows, dtype=np.float32) % 2  # half of the rows are not read
    loss, *_ = cca_kl(emulation, student, teacher, tau, weights=weights, wants_student=False, wants_tau=False)
    yield done(emulation, "cca_kl, half of the weights 0", student[1::2], teacher[1::2], tau, weights, loss)
    assert by_student is not None
    yield plan_backward(emulation, "cca_kl backward", by_student, by_tau)
