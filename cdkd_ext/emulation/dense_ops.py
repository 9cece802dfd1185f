"""projector_cosine and sau_select on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from cdkd_ext.emulation.library import FORMATS, Emulation, pointer, unset

_MAX_BRANCHES = 32


class _ProjectorCosine(ctypes.Structure):
    _fields_ = [
        ("format", ctypes.c_int32),
        ("tensor_cores", ctypes.c_bool),
        ("relu", ctypes.c_bool),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("samples", "channels", "positions", "targets", "projectors")),
        *((name, ctypes.c_void_p) for name in ("feature", "weight", "bias", "select", "teacher")),
        *((name, ctypes.c_void_p) for name in ("cosine", "products", "projected", "active")),
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
    call = _ProjectorCosine(FORMATS[feature.dtype.name], tensor_cores, relu, eps)
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
    _launch(emulation, "projector_cosine", call, arrays)
    if gradient is None:
        return (arrays["cosine"],)
    arrays |= {
        "gradient": gradient,
        "feature_gradient": unset(feature.shape, wide) if wants_feature else None,
        "weight_gradient": unset(weight.shape, wide) if wants_weight else None,
        "bias_gradient": unset(bias.shape, wide) if wants_weight else None,
        "select_gradient": unset(select.shape, wide),
    }
    _launch(emulation, "projector_cosine_backward", call, arrays)
    names = ("feature", "weight", "bias", "select")
    return (arrays["cosine"], *(arrays[f"{name}_gradient"] for name in names))


_PARAMETERS = ("norm_weight", "norm_bias", "squeeze_weight", "squeeze_bias", "select_weight", "select_bias")


class _SauSelect(ctypes.Structure):
    _fields_ = [
        ("format", ctypes.c_int32),
        ("training", ctypes.c_bool),
        ("eps", ctypes.c_double),
        *(
            (name, ctypes.c_int64)
            for name in ("samples", "channels", "height", "width", "hidden", "projectors")
        ),
        ("branches", ctypes.c_int32),
        ("kernel", ctypes.c_int32 * _MAX_BRANCHES),
        ("feature", ctypes.c_void_p),
        ("conv_weight", ctypes.c_void_p * _MAX_BRANCHES),
        *((name, ctypes.c_void_p) for name in ("norm_weight", "norm_bias", "running_mean", "running_var")),
        *((name, ctypes.c_void_p) for name in _PARAMETERS[2:]),
        *(
            (name, ctypes.c_void_p)
            for name in ("selection", "mean", "variance", "responses", "pooled", "passed")
        ),
        ("gradient", ctypes.c_void_p),
        ("feature_gradient", ctypes.c_void_p),
        ("conv_gradient", ctypes.c_void_p * _MAX_BRANCHES),
        *((f"{name}_gradient", ctypes.c_void_p) for name in _PARAMETERS),
        ("workspace", ctypes.c_void_p),
    ]


def sau_select(
    emulation: Emulation,
    feature: np.ndarray,
    conv_weights: Sequence[np.ndarray],
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    squeeze_weight: np.ndarray,
    squeeze_bias: np.ndarray,
    select_weight: np.ndarray,
    select_bias: np.ndarray,
    gradient: np.ndarray | None = None,
    *,
    training: bool,
    eps: float = 1e-5,
    wants_feature: bool = True,
) -> tuple[np.ndarray | None, ...]:
    """Return selection (B, K, C), mean and variance (M, C) and, given the selection's gradient, further gradients.

    They are those of feature, of norm's weight and bias, of the four arrays after the running statistics, then of
    each convolution. Shapes as in `cdkd_ext.ops.sau_select`; feature and conv_weights have one type, the others are
    float32, or float64 with feature.
    """
    samples, channels, height, width = feature.shape
    branches, wide = len(conv_weights), norm_weight.dtype
    call = _SauSelect(FORMATS[feature.dtype.name], training, eps, samples, channels, height, width)
    call.hidden, call.projectors, call.branches = squeeze_weight.shape[0], select_bias.shape[0], branches
    for m, weight in enumerate(conv_weights):
        call.kernel[m], call.conv_weight[m] = weight.shape[-1], pointer(weight)
    arrays: dict[str, np.ndarray | None] = {
        "feature": feature,
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
        "running_mean": running_mean,
        "running_var": running_var,
        "squeeze_weight": squeeze_weight,
        "squeeze_bias": squeeze_bias,
        "select_weight": select_weight,
        "select_bias": select_bias,
        "selection": unset((samples, *select_bias.shape), wide),
        "mean": unset(norm_weight.shape, wide),
        "variance": unset(norm_weight.shape, wide),
        "pooled": unset((samples, channels), wide),
    }
    if training or gradient is not None:
        arrays["responses"] = unset((samples, branches * channels, height, width), wide)
        arrays["passed"] = unset((2, branches, channels, samples), wide)
    _launch(emulation, "sau_select", call, arrays)
    outputs = (arrays["selection"], arrays["mean"], arrays["variance"])
    if gradient is None:
        return outputs
    convolutions = [unset(weight.shape, wide) for weight in conv_weights]
    for m, convolution in enumerate(convolutions):
        call.conv_gradient[m] = pointer(convolution)
    arrays |= {
        "gradient": gradient,
        "feature_gradient": unset(feature.shape, wide) if wants_feature else None,
    }
    arrays |= {f"{name}_gradient": unset(_shape(arrays[name]), wide) for name in _PARAMETERS}
    _launch(emulation, "sau_select_backward", call, arrays)
    gradients = (arrays[f"{name}_gradient"] for name in ("feature", *_PARAMETERS))
    return (*outputs, *gradients, *convolutions)


def _shape(array: np.ndarray | None) -> tuple[int, ...]:
    return () if array is None else array.shape


def _launch(emulation: Emulation, op: str, call: Any, arrays: dict[str, np.ndarray | None]) -> None:
    """Point the call at the arrays and at a workspace, and run it."""
    for name, array in arrays.items():
        setattr(call, name, pointer(array))
    call.workspace = None
    workspace = unset((emulation.workspace(op, call),), np.uint8)
    call.workspace = pointer(workspace)
    emulation.call(op, call)
