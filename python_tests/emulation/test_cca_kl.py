from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_values import TYPES, assert_near, convert, exact, normal

from cdkd_ext.emulation.cca_kl import cca_kl
from cdkd_ext.emulation.library import Emulation


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def merge_matrix(bins: int, classes: int, centered: bool, offset: float | None = None) -> np.ndarray:
    """Share of each bin in each class, (N_t, N_s)."""
    ratio = bins / classes
    if offset is None:
        offset = (ratio - 1) / 2 if centered else 0
    edges = np.arange(classes + 1) * ratio - offset
    edges[0], edges[-1] = 0, bins
    edges = np.clip(edges, 0, bins)
    left = np.arange(bins)[:, None]
    return np.clip(np.minimum(left + 1, edges[1:]) - np.maximum(left, edges[:-1]), 0, None)


def loss_at(
    student: np.ndarray, teacher: np.ndarray, tau: float, centered: bool, offset: float | None = None
) -> np.ndarray:
    merge = merge_matrix(teacher.shape[1], student.shape[1], centered, offset)
    q = np.exp(log_softmax(teacher / tau)) @ merge
    log_q = np.log(np.where(q == 0, 1, q))
    return tau**2 * (q * (log_q - log_softmax(student / tau))).sum(-1)


def reference(
    student: np.ndarray, teacher: np.ndarray, tau: float, centered: bool, offset: float | None = None
) -> tuple[np.ndarray, ...]:
    """Loss, its derivative by the student's logits, and by tau from a central difference of fourth order."""
    student, teacher = exact(student), exact(teacher)
    merge = merge_matrix(teacher.shape[1], student.shape[1], centered, offset)
    q = np.exp(log_softmax(teacher / tau)) @ merge
    step = 1e-3 * tau

    def difference(steps: int) -> np.ndarray:
        above, below = (
            loss_at(student, teacher, tau + sign * steps * step, centered, offset) for sign in (1, -1)
        )
        return (above - below) / (2 * steps * step)

    by_student = tau * (np.exp(log_softmax(student / tau)) - q)
    return (
        loss_at(student, teacher, tau, centered, offset),
        by_student,
        (4 * difference(1) - difference(2)) / 3,
    )


def check(run: Any, rows: int, classes: int, bins: int, dtype: str, centered: bool, tau: float = 1.7) -> None:
    student = normal(0, rows, classes, dtype=dtype, scale=2)
    teacher = normal(1, rows, bins, dtype=dtype, scale=2)
    loss, by_student, by_tau = run(cca_kl, student, teacher, np.array(tau), centered=centered)
    expected = reference(student, teacher, tau, centered)
    assert_near(loss, expected[0])
    assert_near(by_student, expected[1])
    np.testing.assert_allclose(by_tau, expected[2], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("centered", [False, True], ids=["paper", "centered"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("rows", "classes", "bins"),
    [
        (1, 1, 1),
        (3, 1, 7),
        (2, 31, 31),
        (2, 33, 67),
        (2, 96, 256),  # a ratio of 2.67
        (17, 192, 768),
        (133, 12, 48),
        (1, 1024, 4096),
    ],
)
def test_agrees_with_float64(
    run: Any, rows: int, classes: int, bins: int, dtype: str, centered: bool
) -> None:
    check(run, rows, classes, bins, dtype, centered)


@pytest.mark.parametrize("offset", [-500.0, -7.3, -0.25, 0.5, 3.0, 11.9, 500.0])
@pytest.mark.parametrize(("classes", "bins"), [(1, 5), (12, 48), (192, 64), (67, 33), (33, 67)])
def test_offsets_of_any_size(run: Any, classes: int, bins: int, offset: float) -> None:
    student, teacher = normal(0, 2, classes, scale=2), normal(1, 2, bins, scale=2)
    loss, by_student, by_tau = run(cca_kl, student, teacher, np.array(1.7), offset=offset)
    expected = reference(student, teacher, 1.7, False, offset)
    assert_near(loss, expected[0], 3)
    assert_near(by_student, expected[1], 3)
    np.testing.assert_allclose(by_tau, expected[2], rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("classes", "bins"), [(12, 48), (40, 13), (4000, 4001)])
def test_probabilities_are_exponentials_of_logits(run: Any, classes: int, bins: int, dtype: str) -> None:
    student = normal(0, 2, classes, dtype=dtype)
    p = exact(convert(np.abs(np.random.default_rng(1).normal(size=(2, bins))), dtype))
    p[:, 0] = 0
    teacher = np.log(p, where=p > 0, out=np.full_like(p, -np.inf)).astype(
        "float64" if dtype == "float64" else "float32"
    )
    found = run(cca_kl, student, convert(p, dtype), np.array(1.7), probabilities=True)
    expected = run(cca_kl, student, teacher, np.array(1.7))
    for result, wanted in zip(found, expected, strict=True):
        assert_near(result, exact(wanted))


def test_extreme_probabilities(emulation: Emulation) -> None:
    emulation.configure()
    p = np.array([[0, 1e-44, 1e-39, 3e38], [0, 0, 0, 0], [1, -1, 1, 1], [1, np.nan, 1, 1], [1, np.inf, 1, 1]])
    student = normal(0, 5, 4)
    loss, *_ = cca_kl(emulation, student, p.astype(np.float32), np.array(21.0), probabilities=True)
    z = np.log(np.maximum(p[:1].astype(np.float32).astype(np.float64), 1e-300))
    z[0, 0] = -1e9
    assert_near(loss[:1], loss_at(exact(student[:1]), z, 21.0, False), 441)
    assert np.isnan(loss[1:]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "float16"])
@pytest.mark.parametrize("bins", [48, 9000])
def test_weights_scale_rows_and_zeros_are_not_read(run: Any, bins: int, dtype: str) -> None:
    student, teacher = normal(0, 5, 12), normal(1, 5, bins)
    weights = convert(np.array([1.0, 0.0, 2.5, 0.0, -0.5]), dtype)
    plain = run(cca_kl, student, teacher, np.array(1.5))
    student[1], teacher[3] = np.nan, np.inf
    found = run(cca_kl, student, teacher, np.array(1.5), weights=weights)
    for result, unweighted in zip(found, plain, strict=True):
        factors = exact(weights).reshape(-1, *(1,) * (result.ndim - 1))
        assert_near(result, factors * unweighted)
        assert not result[[1, 3]].any()


@pytest.mark.parametrize("bins", [255, 256, 257, 263, 264, 265, 2047, 2048, 2049])
def test_one_over_and_under_each_tile(run: Any, bins: int) -> None:
    check(run, 2, 129, bins, "float32", centered=True)
    check(run, 2, 129, bins, "float16", centered=False)


def test_rows_beyond_shared_memory(run: Any) -> None:
    check(run, 2, 4000, 4001, "float32", centered=True)
    check(run, 1, 2000, 5003, "float64", centered=False)


def test_more_rows_than_blocks(emulation: Emulation) -> None:
    student, teacher = normal(0, 4100, 2), normal(1, 4100, 5)
    emulation.configure()
    loss, by_student, _ = cca_kl(emulation, student, teacher, np.array(1.3))
    expected = reference(student, teacher, 1.3, centered=False)
    assert_near(loss, expected[0])
    assert_near(by_student, expected[1])


def test_rows_that_lie_differently_in_memory(run: Any) -> None:
    student, teacher = normal(0, 1 + 3 * 13)[1:].reshape(3, 13), normal(1, 2 + 3 * 29)[2:].reshape(3, 29)
    results = run(cca_kl, student, teacher, np.array(1.5))
    expected = run(cca_kl, student.copy(), teacher.copy(), np.array(1.5))
    assert all((a == b).all() for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("wanted", [(False, False), (True, False)])
def test_what_is_not_wanted_changes_nothing(emulation: Emulation, wanted: tuple[bool, bool]) -> None:
    emulation.configure()
    student, teacher, tau = normal(0, 3, 12), normal(1, 3, 32), np.array(2.0)
    everything = cca_kl(emulation, student, teacher, tau)
    some = cca_kl(emulation, student, teacher, tau, wants_student=wanted[0], wants_tau=wanted[1])
    np.testing.assert_array_equal(some[0], everything[0])
    if wanted[0]:
        np.testing.assert_array_equal(some[1], everything[1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "float16"])
def test_tau_and_teacher_of_other_types(emulation: Emulation, dtype: str) -> None:
    emulation.configure()
    student, teacher = normal(0, 3, 12, dtype="float16"), normal(1, 3, 48, dtype=dtype)
    loss, by_student, _ = cca_kl(emulation, student, teacher, convert(np.array(1.5), dtype))
    expected = reference(student, teacher, 1.5, centered=False)
    np.testing.assert_allclose(loss, expected[0], rtol=2e-5, atol=2e-5)
    assert_near(by_student, expected[1])


def test_rows_with_infinities_and_nans(emulation: Emulation) -> None:
    emulation.configure()
    student, teacher = normal(0, 6, 3), normal(1, 6, 6)
    clean = cca_kl(emulation, student, teacher, np.array(1.0))
    student[0, 1], teacher[0, 2:4] = -np.inf, -np.inf  # both exclude class 1
    student[1, 1] = -np.inf  # the teacher does not
    student[2, 0] = np.nan
    teacher[3, 5] = np.nan
    teacher[4] = -np.inf
    loss, by_student, by_tau = cca_kl(emulation, student, teacher, np.array(1.0))
    assert by_student is not None and by_tau is not None and clean[1] is not None
    keep = [0, 1, 4, 5]
    expected = reference(student[:1, [0, 2]], teacher[:1, keep], 1.0, centered=False)
    assert_near(loss[:1], expected[0])
    np.testing.assert_allclose(by_student[:1, [0, 2]], expected[1], atol=1e-6)
    assert by_student[0, 1] == 0 and np.isfinite(by_tau[0])
    assert loss[1] == np.inf
    assert np.isnan(loss).tolist() == [False, False, True, True, True, False]
    assert np.isnan(by_student).all(-1).tolist() == [False, False, True, True, True, False]
    np.testing.assert_array_equal(by_student[5], clean[1][5])


@pytest.mark.parametrize("tau", [0.0, -1.0, np.nan, np.inf])
def test_a_tau_that_is_no_temperature_gives_nan(emulation: Emulation, tau: float) -> None:
    emulation.configure()
    results = cca_kl(emulation, normal(0, 2, 4), normal(1, 2, 8), np.array(tau))
    assert all(np.isnan(result).all() for result in results if result is not None)
