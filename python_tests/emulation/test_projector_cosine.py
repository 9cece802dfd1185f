from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_values import TYPES, convert, exact, normal

from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.projector_cosine import projector_cosine

NAMES = ("cosine", "feature", "weight", "bias", "select")
# 16-bit types on tensor cores round the product's gradient; without them everything is summed in float32
TOLERANCE = {"float64": 1e-11, "float32": 2e-5, "uint16": 1e-2, "float16": 2e-3}


def draw(
    samples: int, channels: int, positions: int, targets: int, projectors: int, *, dtype: str = "float64"
) -> list[np.ndarray]:
    """The arguments of projector_cosine, with the cosine's gradient."""
    wide = "float64" if dtype == "float64" else "float32"
    select = np.exp(normal(3, samples, projectors, channels, dtype="float64"))
    return [
        normal(0, samples, channels, positions, dtype=dtype),
        normal(1, projectors, targets, positions, dtype=dtype, scale=positions**-0.5),
        normal(2, projectors, targets, dtype=wide),
        convert(select / select.sum(1, keepdims=True), wide),
        normal(4, samples, channels, targets, dtype=dtype),
        convert(np.linspace(1, 2, samples), wide),
    ]


def reference(arguments: list[np.ndarray], relu: bool, eps: float = 1e-8) -> list[np.ndarray]:
    """Cosine and gradients of feature, weight, bias and select in float64, by the chain rule written out."""
    feature, weight, bias, select, teacher, gradient = (exact(a) for a in arguments)
    products = np.einsum("bcs,kts->bkct", feature, weight) + bias[:, None, :]
    passes = products > 0 if relu else np.ones_like(products)
    activations = products * passes
    output = np.einsum("bkc,bkct->bct", select, activations)
    inner = (output * teacher).sum((1, 2))
    norm = np.sqrt((output**2).sum((1, 2)))
    norms = np.maximum(norm, eps) * np.maximum(np.sqrt((teacher**2).sum((1, 2))), eps)
    shrink = np.where(norm < eps, 0, inner / np.maximum(norm, eps) ** 2)
    by_output = (gradient / norms)[:, None, None] * (teacher - shrink[:, None, None] * output)
    by_product = np.einsum("bct,bkc->bkct", by_output, select) * passes
    return [
        inner / norms,
        np.einsum("bkct,kts->bcs", by_product, weight),
        np.einsum("bkct,bcs->kts", by_product, feature),
        by_product.sum((0, 2)),
        np.einsum("bct,bkct->bkc", by_output, activations),
    ]


def assert_agrees(results: Any, expected: list[np.ndarray], tolerance: float) -> None:
    for name, found, wanted in zip(NAMES, results, expected, strict=True):
        allowed = tolerance if name != "cosine" else min(tolerance, 1e-5)  # the forward pass rounds nothing
        error = np.abs(found - wanted).max()
        assert error <= allowed * (np.abs(wanted).max() + 1e-3), f"{name}: {error} of {np.abs(wanted).max()}"


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "none"])
@pytest.mark.parametrize("dtype", [*TYPES, "bfloat16 without tensor cores"])
@pytest.mark.parametrize(
    ("samples", "channels", "positions", "targets", "projectors"),
    [
        (1, 1, 1, 3, 2),
        (1, 3, 1, 1, 1),
        (2, 3, 5, 7, 2),
        (3, 21, 31, 63, 3),  # one under each tile
        (1, 64, 32, 64, 1),
        (5, 13, 33, 65, 4),  # one over each
        (2, 33, 64, 80, 5),  # whole vectors, not whole tiles
        (1, 5, 67, 263, 9),  # two planes of bits, two splits of the targets
        (1, 133, 8, 16, 2),
    ],
)
def test_agrees_with_float64(
    emulation: Emulation,
    samples: int,
    channels: int,
    positions: int,
    targets: int,
    projectors: int,
    dtype: str,
    relu: bool,
) -> None:
    tensor_cores = dtype in TYPES
    dtype = dtype if tensor_cores else "uint16"
    arguments = draw(samples, channels, positions, targets, projectors, dtype=dtype)
    expected = reference(arguments, relu)
    emulation.configure()
    for keep in (True, False):
        results = projector_cosine(emulation, *arguments, relu=relu, keep=keep, tensor_cores=tensor_cores)
        assert_agrees(results, expected, TOLERANCE[dtype] if tensor_cores else 2e-5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "projected again"])
def test_same_bits_under_every_schedule(run: Any, dtype: str, keep: bool) -> None:
    arguments = draw(5, 14, 24, 272, 4, dtype=dtype)
    results = run(projector_cosine, *arguments, keep=keep)
    assert_agrees(results, reference(arguments, relu=True), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["uint16", "float16"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 2e3])
def test_gradients_fit_16_bits_whatever_the_scale(emulation: Emulation, dtype: str, scale: float) -> None:
    arguments = draw(4, 9, 24, 32, 3, dtype=dtype)
    arguments[4] = convert(exact(arguments[4]) * scale, dtype)
    arguments[5] = convert(exact(arguments[5]) * np.array([1, 1e-3, 1e3, 1e-9]), "float32")
    emulation.configure()
    results = projector_cosine(emulation, *arguments)
    assert_agrees(results, reference(arguments, relu=True), TOLERANCE[dtype])


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_what_is_not_wanted_changes_nothing(emulation: Emulation, wanted: tuple[bool, bool]) -> None:
    arguments = draw(2, 5, 20, 300, 4, dtype="float32")
    emulation.configure()
    everything = projector_cosine(emulation, *arguments)
    some = projector_cosine(emulation, *arguments, wants_feature=wanted[0], wants_weight=wanted[1])
    kept = (True, wanted[0], wanted[1], wanted[1], True)
    for name, found, expected, wants in zip(NAMES, some, everything, kept, strict=True):
        assert np.array_equal(found, expected) if wants else found is None, name


def test_misaligned_inputs(emulation: Emulation) -> None:
    arguments = draw(2, 5, 32, 48, 2, dtype="float16")
    emulation.configure()
    expected = projector_cosine(emulation, *arguments)
    for i in (0, 1, 4):
        room = np.empty(arguments[i].size + 1, arguments[i].dtype)
        room[1:] = arguments[i].ravel()
        arguments[i] = room[1:].reshape(arguments[i].shape)
    for name, found, wanted in zip(NAMES, projector_cosine(emulation, *arguments), expected, strict=True):
        np.testing.assert_array_equal(found, wanted, name)


def test_launches(emulation: Emulation) -> None:
    arguments = draw(8, 3, 16, 32, 3)
    emulation.configure()
    for keep, count in ((True, 2 + 3), (False, 2 + 4 * 4)):
        emulation.clear_launches()
        projector_cosine(emulation, *arguments, keep=keep)
        assert len(emulation.launches()) == count


@pytest.mark.parametrize("dtype", TYPES)
def test_norms_are_clamped(emulation: Emulation, dtype: str) -> None:
    arguments = draw(3, 4, 8, 16, 2, dtype=dtype)
    arguments[3][0] = 0  # no output in the first sample, no teacher in the second
    arguments[4][1] = 0
    emulation.configure()
    results = projector_cosine(emulation, *arguments)
    assert results[0][:2].tolist() == [0, 0]
    # the first sample's gradient is its teacher's over eps: the others drown in it
    expected = reference(arguments, relu=True)
    assert np.isfinite(np.concatenate([r.ravel() for r in results])).all()
    assert_agrees(results, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES)
def test_a_nan_stays_with_its_sample(emulation: Emulation, dtype: str) -> None:
    arguments = draw(4, 5, 16, 32, 2, dtype=dtype)
    arguments[0][1, 2, 3] = convert(np.array(np.nan), dtype).item()
    arguments[4][2, 0, 31] = convert(np.array(np.nan), dtype).item()
    emulation.configure()
    cosine, feature, weight, _, select = projector_cosine(emulation, *arguments)
    broken = [False, True, True, False]
    assert np.isnan(cosine).tolist() == broken
    assert np.isnan(feature).any((1, 2)).tolist() == broken
    assert np.isnan(select).any((1, 2)).tolist() == broken
    assert np.isnan(weight).any()


def test_no_map_of_a_projector_is_in_memory(emulation: Emulation) -> None:
    samples, channels, targets, projectors = 4, 16, 512, 5
    arguments = draw(samples, channels, 16, targets, projectors, dtype="float16")
    emulation.configure()
    emulation.clear_launches()
    projector_cosine(emulation, *arguments)
    written = sum(launch.written for launch in emulation.launches())
    gradients = sum(4 * array.size for array in arguments[:4])
    output = samples * channels * targets * (4 + 1)  # floats and a plane of bits
    maps = projectors * samples * channels * targets * 2  # in 16 bits
    assert written - gradients - output < maps / 4
