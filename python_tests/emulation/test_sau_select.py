from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_values import TYPES, convert, exact, normal

from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.sau_select import sau_select

NAMES = (
    *("selection", "mean", "variance", "feature", "norm_weight", "norm_bias"),
    *("squeeze_weight", "squeeze_bias", "select_weight", "select_bias"),
)
EPS = 1e-5


def draw(
    samples: int,
    channels: int,
    height: int,
    width: int,
    kernels: tuple[int, ...],
    *,
    projectors: int = 3,
    hidden: int = 5,
    dtype: str = "float64",
) -> list[Any]:
    """The arguments of sau_select, with the selection's gradient."""
    wide = "float64" if dtype == "float64" else "float32"
    branches = len(kernels)
    weights = [
        normal(m, channels, channels, k, k, dtype=dtype, scale=channels**-0.5 / k)
        for m, k in enumerate(kernels)
    ]
    return [
        normal(20, samples, channels, height, width, dtype=dtype),
        weights,
        convert(1 + exact(normal(21, branches, channels)) / 4, wide),
        normal(22, branches, channels, dtype=wide, scale=0.3),
        normal(23, branches, channels, dtype=wide, scale=0.3),
        convert(0.5 + exact(normal(24, branches, channels)) ** 2, wide),
        normal(25, hidden, channels, dtype=wide, scale=0.7),
        convert(0.3 + exact(normal(26, hidden)) / 4, wide),
        normal(27, projectors, channels, hidden, dtype=wide),
        normal(28, projectors, channels, dtype=wide),
        normal(29, samples, projectors, channels, dtype=wide),
    ]


def shifted(feature: np.ndarray, kernel: int, ky: int, kx: int) -> np.ndarray:
    """The feature (B, C, h, w) seen through one tap of a kernel with zero padding."""
    p = kernel // 2
    padded = np.pad(feature, ((0, 0), (0, 0), (p, p), (p, p)))
    return padded[:, :, ky : ky + feature.shape[2], kx : kx + feature.shape[3]]


def reference(arguments: list[Any], training: bool) -> dict[str, np.ndarray]:
    """Results and gradients in float64, by the chain rule written out."""
    feature, weights, *rest = [exact(a) if isinstance(a, np.ndarray) else a for a in arguments]
    weights = [exact(w) for w in weights]
    gamma, beta, running_mean, running_var, w0, b0, w1, b1, gradient = rest
    pixels = feature.shape[2] * feature.shape[3]
    count = feature.shape[0] * pixels
    branches = []
    pooled = np.zeros(feature.shape[:2])
    for m, weight in enumerate(weights):
        kernel = weight.shape[-1]
        taps = [(ky, kx) for ky in range(kernel) for kx in range(kernel)]
        response = sum(
            np.einsum("bcyx,oc->boyx", shifted(feature, kernel, ky, kx), weight[:, :, ky, kx])
            for ky, kx in taps
        )
        mean = response.mean((0, 2, 3)) if training else running_mean[m]
        variance = response.var((0, 2, 3)) if training else running_var[m]
        inverse = 1 / np.sqrt(variance + EPS)
        x = (response - mean[:, None, None]) * inverse[:, None, None]
        value = x * gamma[m, :, None, None] + beta[m, :, None, None]
        pooled += np.maximum(value, 0).sum((2, 3)) / pixels
        branches.append((mean, variance, inverse, x, value > 0))
    squeezed = np.maximum(pooled @ w0.T + b0, 0)
    scores = np.einsum("bd,kcd->bkc", squeezed, w1) + b1
    selection = np.exp(scores - scores.max(1, keepdims=True))
    selection /= selection.sum(1, keepdims=True)

    by_scores = selection * (gradient - (gradient * selection).sum(1, keepdims=True))
    by_squeezed = np.einsum("bkc,kcd->bd", by_scores, w1) * (squeezed > 0)
    by_pooled = by_squeezed @ w0 / pixels
    by_feature = np.zeros(feature.shape)
    by_gamma, by_beta, by_weights = np.zeros(gamma.shape), np.zeros(beta.shape), []
    for m, (weight, (_, _, inverse, x, passes)) in enumerate(zip(weights, branches, strict=True)):
        kernel = weight.shape[-1]
        g = by_pooled[:, :, None, None] * passes
        by_gamma[m], by_beta[m] = (g * x).sum((0, 2, 3)), g.sum((0, 2, 3))
        if training:
            g = g - (by_beta[m][:, None, None] + x * by_gamma[m][:, None, None]) / count
        g = g * (gamma[m] * inverse)[:, None, None]
        by_weight = np.zeros(weight.shape)
        for ky in range(kernel):
            for kx in range(kernel):
                by_weight[:, :, ky, kx] = np.einsum("boyx,bcyx->oc", g, shifted(feature, kernel, ky, kx))
                back = shifted(g, kernel, kernel - 1 - ky, kernel - 1 - kx)
                by_feature += np.einsum("boyx,oc->bcyx", back, weight[:, :, ky, kx])
        by_weights.append(by_weight)
    return {
        "selection": selection,
        "mean": np.stack([b[0] for b in branches]),
        "variance": np.stack([b[1] for b in branches]),
        "feature": by_feature,
        "norm_weight": by_gamma,
        "norm_bias": by_beta,
        "squeeze_weight": by_squeezed.T @ pooled,
        "squeeze_bias": by_squeezed.sum(0),
        "select_weight": np.einsum("bkc,bd->kcd", by_scores, squeezed),
        "select_bias": by_scores.sum(0),
        **{f"conv_weights[{m}]": w for m, w in enumerate(by_weights)},
    }


def assert_agrees(results: tuple[np.ndarray, ...], expected: dict[str, np.ndarray], tolerance: float) -> None:
    for (name, wanted), found in zip(expected.items(), results, strict=True):
        error = np.abs(found - wanted).max()
        assert error <= tolerance * (np.abs(wanted).max() + 1e-3), (
            f"{name}: {error} of {np.abs(wanted).max()}"
        )


def check(run: Any, arguments: list[Any], training: bool, tolerance: float = 1e-11) -> None:
    assert_agrees(run(sau_select, *arguments, training=training), reference(arguments, training), tolerance)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("samples", "channels", "height", "width", "kernels"),
    [
        (2, 1, 1, 1, (1,)),
        (1, 2, 1, 7, (3,)),
        (3, 5, 4, 4, (3, 5)),
        (7, 3, 8, 8, (3, 5, 7, 7)),  # several samples in a tile
        (2, 9, 5, 17, (1, 3)),  # one map over a tile's eight, one column over its sixteen
        (1, 8, 33, 15, (5, 3, 9)),
        (2, 2, 3, 2, (11,)),  # the kernel is larger than the map
    ],
)
def test_agrees_with_float64(
    run: Any, samples: int, channels: int, height: int, width: int, kernels: tuple[int, ...], training: bool
) -> None:
    check(run, draw(samples, channels, height, width, kernels), training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", TYPES[1:])
def test_narrow_types_are_summed_in_float32(emulation: Emulation, dtype: str, training: bool) -> None:
    arguments = draw(4, 9, 8, 8, (3, 5, 7), dtype=dtype)
    emulation.configure()
    results = sau_select(emulation, *arguments, training=training)
    assert_agrees(results, reference(arguments, training), 2e-5)


@pytest.mark.parametrize("projectors", [1, 2, 4, 5])
def test_any_number_of_projectors_and_hidden_units(run: Any, projectors: int) -> None:
    check(run, draw(2, 3, 4, 4, (3,), projectors=projectors, hidden=16 * projectors + 1), True)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_many_channels(emulation: Emulation, training: bool) -> None:
    arguments = draw(1, 133, 4, 4, (3,), dtype="float32", hidden=32)
    emulation.configure()
    assert_agrees(sau_select(emulation, *arguments, training=training), reference(arguments, training), 2e-5)


def check_within_the_map(
    emulation: Emulation, arguments: list[Any], training: bool, tolerance: float = 2e-5
) -> None:
    """As `check`, for one kernel larger than the map: taps that meet padding alone are left out of the reference."""
    height, width = arguments[0].shape[2:]
    weight = exact(arguments[1][0])
    rows, columns = (
        (weight.shape[-1] - min(weight.shape[-1], 2 * size - 1)) // 2 for size in (height, width)
    )
    edge = min(rows, columns)  # a square remains
    middle = arguments.copy()
    kept = slice(edge, weight.shape[-1] - edge)
    middle[1] = [convert(weight[:, :, kept, kept], arguments[1][0].dtype.name)]
    expected = reference(middle, training)
    expected["conv_weights[0]"] = np.pad(
        expected["conv_weights[0]"], ((0, 0), (0, 0), (edge,) * 2, (edge,) * 2)
    )
    emulation.configure()
    assert_agrees(sau_select(emulation, *arguments, training=training), expected, tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [37, 127])
def test_large_kernels_in_bands(emulation: Emulation, kernel: int, dtype: str) -> None:
    for training in (True, False):
        check_within_the_map(emulation, draw(2, 2, 5, 6, (kernel,), dtype=dtype), training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("samples", "height", "width", "kernel", "dtype"),
    [
        *((70, 1, width, kernel, "float32") for width in (1, 2, 5) for kernel in (13, 31, 127)),
        (70, 3, 4, 11, "float32"),
        *((70, 1, width, kernel, "float64") for width in (1, 5, 8) for kernel in (11, 31, 127)),
        (20, 4, 8, 127, "float64"),
        (1, 90, 1, 31, "float32"),  # a tall tile of the weights' gradient
        (1, 60, 2, 127, "float32"),
    ],
)
def test_narrow_maps_under_large_kernels_fit_into_shared_memory(
    emulation: Emulation, samples: int, height: int, width: int, kernel: int, dtype: str, training: bool
) -> None:
    """What a device gives without asking is 48 KiB; the emulation refuses a launch that needs more."""
    arguments = draw(samples, 1, height, width, (kernel,), dtype=dtype)
    check_within_the_map(emulation, arguments, training, 1e-11 if dtype == "float64" else 1e-3)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("hidden", "dtype"), [(1365, "float32"), (10238, "float32"), (4094, "float64")])
def test_many_hidden_units_fit_into_shared_memory(
    emulation: Emulation, hidden: int, dtype: str, training: bool
) -> None:
    arguments = draw(2, 2, 3, 3, (3,), hidden=hidden, dtype=dtype)
    tolerance = 1e-11 if dtype == "float64" else 1e-3
    emulation.configure()
    results = sau_select(emulation, *arguments, training=training)
    assert_agrees(results, reference(arguments, training), tolerance)


def test_no_feature_gradient_changes_nothing_else(emulation: Emulation) -> None:
    arguments = draw(3, 4, 6, 5, (3, 5))
    emulation.configure()
    all_results = sau_select(emulation, *arguments, training=True)
    emulation.clear_launches()
    results = sau_select(emulation, *arguments, training=True, wants_feature=False)
    assert results[3] is None
    for name, some, every in zip(NAMES, results, all_results, strict=False):
        assert name == "feature" or np.array_equal(some, every), name
    assert len(emulation.launches()) == 3 + 4


def test_launches(emulation: Emulation) -> None:
    arguments = draw(3, 4, 6, 5, (3, 5, 7, 7))
    emulation.configure()
    for training, backward, count in ((True, False, 3), (False, False, 1), (True, True, 8), (False, True, 6)):
        emulation.clear_launches()
        sau_select(emulation, *(arguments if backward else arguments[:-1]), training=training)
        assert len(emulation.launches()) == count


def test_a_nan_stays_with_its_sample_in_evaluation(emulation: Emulation) -> None:
    arguments = draw(3, 4, 6, 5, (3,))
    arguments[0][1, 2, 3, 4] = np.nan
    emulation.configure()
    selection = sau_select(emulation, *arguments[:-1], training=False)[0]
    assert np.isnan(selection).all((1, 2)).tolist() == [False, True, False]
    assert not np.isnan(selection[[0, 2]]).any()
    assert np.isnan(sau_select(emulation, *arguments[:-1], training=True)[0]).all()


def test_statistics_far_from_zero(emulation: Emulation) -> None:
    arguments = draw(4, 2, 9, 9, (1,), dtype="float32")
    arguments[0] = convert(exact(arguments[0]) + 1000, "float32")
    emulation.configure()
    variance = sau_select(emulation, *arguments[:-1], training=True)[2]
    np.testing.assert_allclose(variance, reference(arguments, True)["variance"], rtol=1e-3)
