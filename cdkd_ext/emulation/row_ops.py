"""The row-wise ops on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes

import numpy as np

from cdkd_ext.emulation.library import Emulation, Rows, pointer, rows, unset


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


class _ScaleRows(ctypes.Structure):
    _fields_ = [
        ("unscaled", Rows),
        ("scale", Rows),
        ("rows", ctypes.c_int64),
        ("wide", ctypes.c_bool),
        ("scaled", Rows),
        ("weighted", Rows),
        ("partials", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
    ]


def scale_rows(
    emulation: Emulation, unscaled: np.ndarray, scale: np.ndarray, weighted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return unscaled (R, N) times scale (R,), and Σ weighted (R,) · scale as (1,) where there is a `weighted`."""
    scaled = unset(unscaled.shape, unscaled.dtype)
    partials = unset((1024,), np.float64) if weighted is not None else None
    total = unset((1,), np.float64) if weighted is not None else None
    call = _ScaleRows(
        rows(unscaled),
        rows(scale, scalars=True),
        unscaled.shape[0],
        np.float64 in (unscaled.dtype, scale.dtype),
        rows(scaled),
        rows(weighted, scalars=True),
        pointer(partials),
        pointer(total),
    )
    emulation.call("scale_rows", call)
    return scaled, total


class _SimccKl(ctypes.Structure):
    _fields_ = [
        ("logits", Rows),
        ("target", Rows),
        ("rows", ctypes.c_int64),
        ("smoothing", ctypes.c_double),
        ("sigma", ctypes.c_double),
        ("wide", ctypes.c_bool),
        ("loss", ctypes.c_void_p),
        ("gradient", Rows),
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
    call = _SimccKl(
        rows(logits),
        rows(target, scalars=True),
        logits.shape[0],
        label_smoothing,
        sigma,
        wide,
        pointer(loss),
        rows(gradient),
    )
    emulation.call("simcc_kl", call)
    return loss, gradient


class _DecodeAxis(ctypes.Structure):
    _fields_ = [("logits", Rows), ("mirrored", Rows)]


class _SimccDecode(ctypes.Structure):
    _fields_ = [
        ("x", _DecodeAxis),
        ("y", _DecodeAxis),
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
    call = _SimccDecode(
        _DecodeAxis(rows(logits_x), rows(mirrored_x)),
        _DecodeAxis(rows(logits_y), rows(mirrored_y)),
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
