"""projector_cosine on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from cdkd_ext.emulation.library import FORMATS, Emulation, Mirror, launch, unset
from cdkd_ext.emulation.passes import MOST_BLOCKS, LaunchSizes, Pass, count_bytes, done, random

POSITION = 4  # in the launch plan


class ProjectorCosine(Mirror):
    """The struct of this name in csrc/ops/projector_cosine/arguments.h."""

    _fields_: ClassVar = [
        ("format", ctypes.c_int32),
        ("tensor_cores", ctypes.c_bool),
        ("relu", ctypes.c_bool),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("samples", "channels", "positions", "targets", "projectors")),
        *((name, ctypes.c_void_p) for name in ("feature", "weight", "bias", "select", "teacher")),
        *((name, ctypes.c_void_p) for name in ("cosine", "products", "projected", "active", "inner")),
        *((name, ctypes.c_void_p) for name in ("gradient", "feature_gradient", "weight_gradient")),
        *((name, ctypes.c_void_p) for name in ("bias_gradient", "select_gradient", "workspace")),
    ]


def projector_cosine(
    emulation: Emulation,
    feature: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    select: np.ndarray,
    teacher: np.ndarray,
    gradient: np.ndarray | None = None,
    *,
    relu: bool = True,
    eps: float = 1e-8,
    keep: bool = True,
    tensor_cores: bool = True,
    wants_feature: bool = True,
    wants_weight: bool = True,
) -> tuple[np.ndarray | None, ...]:
    """Return the cosine (B,) and, given its gradient, those of feature, weight, bias and select.

    Args:
        emulation: the kernels.
        feature: (B, C, S).
        weight: (K, T, S), of feature's type.
        bias: (K, T), float32, or float64 with feature.
        select: (B, K, C), likewise.
        teacher: (B, C, T), of feature's type.
        gradient: (B,), of bias's type; None for the forward pass only.
        relu: the activation.
        eps: lower bound of the norms.
        keep: what the backward pass reads, instead of projecting again.
        tensor_cores: multiply 16-bit types on them.
        wants_feature: feature's gradient.
        wants_weight: weight's and bias's gradients.
    """
    samples, channels, positions = feature.shape
    projectors, targets, _ = weight.shape
    wide = bias.dtype
    call = ProjectorCosine(FORMATS[feature.dtype.name], tensor_cores, relu, eps)
    call.samples, call.channels, call.positions = samples, channels, positions
    call.targets, call.projectors = targets, projectors
    arrays: dict[str, np.ndarray | None] = {
        "feature": feature,
        "weight": weight,
        "bias": bias,
        "select": select,
        "teacher": teacher,
        "cosine": unset((samples,), wide),
        "products": unset((samples, 3), wide),
    }
    if gradient is not None and keep:
        arrays["projected"] = unset((samples * channels, targets), wide)
        planes = (projectors + 7) // 8
        arrays["active"] = unset((planes, samples * channels, targets), np.uint8) if relu else None
    launch(emulation, "projector_cosine", call, arrays)
    if gradient is None:
        return (arrays["cosine"],)
    arrays |= {
        "gradient": gradient,
        "feature_gradient": unset(feature.shape, wide) if wants_feature else None,
        "weight_gradient": unset(weight.shape, wide) if wants_weight else None,
        "bias_gradient": unset(bias.shape, wide) if wants_weight else None,
        "select_gradient": unset(select.shape, wide),
    }
    launch(emulation, "projector_cosine_backward", call, arrays)
    names = ("feature", "weight", "bias", "select")
    return (arrays["cosine"], *(arrays[f"{name}_gradient"] for name in names))


def plan(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    """Yield the passes of the launch plan."""
    wide = "float64" if sizes.dtype == "float64" else "float32"
    positions, targets = sizes.student_side**2, sizes.teacher_side**2
    inputs = (
        random(0, (sizes.batch, sizes.joints, positions), sizes.dtype),
        random(1, (sizes.projectors, targets, positions), sizes.dtype),
        random(2, (sizes.projectors, targets), wide),
        random(3, (sizes.batch, sizes.projectors, sizes.joints), wide),
        random(4, (sizes.batch, sizes.joints, targets), sizes.dtype),
    )
    gradient = random(5, (sizes.batch,), wide)
    emulation.configure(max_blocks=MOST_BLOCKS)
    emulation.clear_launches()
    cosine, *_ = projector_cosine(emulation, *inputs)
    yield done(emulation, "projector_cosine", *inputs, cosine)
    cosine, *gradients = projector_cosine(emulation, *inputs, gradient)
    output = random(6, (sizes.batch, sizes.joints, targets), wide)  # kept, with a bit per projector
    bits = np.empty((-(-sizes.projectors // 8), *output.shape), np.uint8)
    launches = emulation.launches()
    forward = count_bytes(*inputs, cosine, output, bits)
    yield Pass("projector_cosine, kept for backward", launches[:2], forward)
    yield Pass(
        "projector_cosine backward", launches[2:], count_bytes(*inputs, gradient, output, bits, *gradients)
    )
