"""sau_select on numpy arrays, by the emulated CUDA kernels; a uint16 array holds bfloat16."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from cdkd_ext.emulation.library import FORMATS, Emulation, Mirror, launch, pointer, unset
from cdkd_ext.emulation.passes import MOST_BLOCKS, LaunchSizes, Pass, count_bytes, done, random

POSITION = 5  # in the launch plan
_MAX_BRANCHES = 32
_PARAMETERS = ("norm_weight", "norm_bias", "squeeze_weight", "squeeze_bias", "select_weight", "select_bias")


class SauSelect(Mirror):
    """The struct of this name in csrc/ops/sau_select/arguments.h."""

    _fields_: ClassVar = [
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
    call = SauSelect(FORMATS[feature.dtype.name], training, eps, samples, channels, height, width)
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
    launch(emulation, "sau_select", call, arrays)
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
    launch(emulation, "sau_select_backward", call, arrays)
    gradients = (arrays[f"{name}_gradient"] for name in ("feature", *_PARAMETERS))
    return (*outputs, *gradients, *convolutions)


def _shape(array: np.ndarray | None) -> tuple[int, ...]:
    return () if array is None else array.shape


def plan(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    """Yield the passes of the launch plan."""
    wide = "float64" if sizes.dtype == "float64" else "float32"
    channels, side, kernels = sizes.joints, sizes.student_side, (3, 5, 7, 7)
    hidden, maps = max(channels // 16, 32), (len(kernels), channels)
    feature = random(0, (sizes.batch, channels, side, side), sizes.dtype)
    weights = [random(k, (channels, channels, k, k), sizes.dtype) for k in kernels]
    shapes: list[tuple[int, ...]] = [maps, maps, maps, maps, (hidden, channels), (hidden,)]
    shapes += [(sizes.projectors, channels, hidden), (sizes.projectors, channels)]
    parameters = [abs(random(i, shape, wide)) for i, shape in enumerate(shapes)]
    gradient = random(9, (sizes.batch, sizes.projectors, channels), wide)
    inputs = (feature, weights, *parameters)
    call: Any = sau_select
    read = (feature, *weights, *parameters)
    emulation.configure(max_blocks=MOST_BLOCKS)
    for training in (False, True):
        emulation.clear_launches()
        outputs = call(emulation, *inputs, training=training)
        yield done(emulation, f"sau_select, {'training' if training else 'evaluation'}", *read, *outputs)
    gradients = call(emulation, *inputs, gradient, training=True)[3:]
    responses = np.empty((len(kernels), *feature.shape), wide)
    launches = emulation.launches()[3:]
    yield Pass("sau_select backward", launches, count_bytes(*read, gradient, responses, *gradients))
