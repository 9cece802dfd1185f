"""The row-wise ops on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes

import numpy as np

from cdkd_ext.cuda.emulation import Emulation, Rows, pointer, rows, unset


class _CcaKl(ctypes.Structure):
    _fields_ = [
        ("student", Rows),
        ("teacher", Rows),
        ("tau", Rows),
        ("rows", ctypes.c_int64),
        ("centered", ctypes.c_bool),
        ("wide", ctypes.c_bool),
        ("loss", ctypes.c_void_p),
        ("student_gradient", Rows),
        ("tau_gradient", ctypes.c_void_p),
    ]


def cca_kl(
    emulation: Emulation,
    student: np.ndarray,
    teacher: np.ndarray,
    tau: np.ndarray,
    *,
    centered: bool = False,
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
    call = _CcaKl(
        rows(student),
        rows(teacher),
        rows(tau, scalars=True),
        count,
        centered,
        wide,
        pointer(loss),
        rows(student_gradient),
        pointer(tau_gradient),
    )
    emulation.call("cca_kl", call)
    return loss, student_gradient, tau_gradient
