"""What each CUDA kernel would launch for given sizes, and the bytes it moves: counted, by running it on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdkd_ext._checks import check, check_option
from cdkd_ext.emulation import dense_ops, row_ops
from cdkd_ext.emulation.library import Emulation, Launch


@dataclass(frozen=True)
class LaunchSizes:
    """Sizes to plan for.

    Args:
        batch: B.
        joints: J.
        student_bins: bins of the student's axes.
        teacher_bins: bins of the teacher's axes, at least the student's.
        student_side: height and width of the student's feature.
        teacher_side: height and width of the teacher's.
        projectors: K.
        dtype: of the logits: "float32", "float64", "float16" or "bfloat16".
    """

    batch: int = 64
    joints: int = 17
    student_bins: int = 192
    teacher_bins: int = 768
    student_side: int = 16
    teacher_side: int = 64
    projectors: int = 3
    dtype: str = "float32"

    def __post_init__(self) -> None:
        sides = ("student_side", "teacher_side", "projectors")
        for name in ("batch", "joints", "student_bins", "teacher_bins", *sides):
            check(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        check(
            self.teacher_bins >= self.student_bins,
            "teacher_bins",
            self.teacher_bins,
            f"at least the student's {self.student_bins}",
        )
        check_option("dtype", self.dtype, ("float32", "float64", "float16", "bfloat16"))


@dataclass(frozen=True)
class Pass:
    """One call of an op, forward or backward, with the fewest bytes that any implementation must move."""

    name: str
    launches: list[Launch]
    fewest: int

    @property
    def moved(self) -> int:
        """Bytes read and written by all launches."""
        return sum(launch.read + launch.written for launch in self.launches)

    @property
    def ratio(self) -> float:
        """Bytes moved over the fewest."""
        return self.moved / self.fewest


def plan_launches(sizes: LaunchSizes, emulation: Emulation | None = None) -> list[Pass]:
    """Run every op once on random inputs of these sizes.

    Raises:
        ImportError: this build has no emulation.
    """
    emulation = emulation or Emulation()
    emulation.configure()
    passes = [done for plan in _PLANS for done in plan(emulation, sizes)]
    emulation.configure()
    return passes


def plan_table(passes: list[Pass]) -> str:
    """Lay the launches out as text."""
    lines = [
        f"{'pass and kernel':<34} {'grid':>6} {'block':>6} {'shared':>7} {'read':>12} {'written':>12} {'in 16 B':>8}"
        f" {'fewest':>12} {'ratio':>6}"
    ]
    for done in passes:
        lines.append(f"{done.name:<81}{done.fewest:>22} {done.ratio:>6.3f}")
        for launch in done.launches:
            wide = launch.read_by_width.get(16, 0) + launch.written_by_width.get(16, 0)
            lines.append(
                f"  {launch.kernel:<32} {_product(launch.grid):>6} {_product(launch.block):>6}"
                f" {launch.shared_bytes:>7} {launch.read:>12} {launch.written:>12}"
                f" {wide / (launch.read + launch.written):>8.1%}"
            )
    return "\n".join(lines)


def _product(sizes: tuple[int, ...]) -> int:
    return int(np.prod(sizes))


def _random(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def _bytes(*arrays: np.ndarray | None) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _done(emulation: Emulation, name: str, *moved: np.ndarray | None) -> Pass:
    launches = emulation.launches()
    emulation.clear_launches()
    return Pass(name, launches, _bytes(*moved))


def _backward(
    emulation: Emulation, name: str, unscaled: np.ndarray, weighted: np.ndarray | None = None
) -> Pass:
    accumulator = np.float64 if unscaled.dtype == np.float64 else np.float32
    gradient = np.ones(len(unscaled), accumulator)
    scaled, total = row_ops.scale_rows(emulation, unscaled, gradient, weighted)
    return _done(emulation, name, unscaled, gradient, weighted, scaled, total)


def _plan_cca_kl(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    rows = sizes.batch * sizes.joints
    student = _random(0, (rows, sizes.student_bins), sizes.dtype)
    teacher = _random(1, (rows, sizes.teacher_bins), sizes.dtype)
    tau = np.array(1.5)
    emulation.clear_launches()
    loss, *_ = row_ops.cca_kl(emulation, student, teacher, tau, wants_student=False, wants_tau=False)
    yield _done(emulation, "cca_kl", student, teacher, tau, loss)
    loss, by_student, by_tau = row_ops.cca_kl(emulation, student, teacher, tau)
    yield _done(emulation, "cca_kl with gradients", student, teacher, tau, loss, by_student, by_tau)
    assert by_student is not None
    yield _backward(emulation, "cca_kl backward", by_student, by_tau)


def _plan_simcc_kl(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    rows = sizes.batch * sizes.joints
    logits = _random(0, (rows, sizes.student_bins), sizes.dtype)
    target = np.random.default_rng(1).uniform(0, sizes.student_bins - 1, rows).astype(np.float32)
    emulation.clear_launches()
    loss, _ = row_ops.simcc_kl(emulation, logits, target, sigma=2.0, wants_gradient=False)
    yield _done(emulation, "simcc_kl", logits, target, loss)
    loss, gradient = row_ops.simcc_kl(emulation, logits, target, sigma=2.0)
    yield _done(emulation, "simcc_kl with gradients", logits, target, loss, gradient)
    assert gradient is not None
    yield _backward(emulation, "simcc_kl backward", gradient)


def _plan_simcc_decode(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    shape = (sizes.batch, sizes.joints, sizes.student_bins)
    x, y, mirrored_x, mirrored_y = (_random(seed, shape, sizes.dtype) for seed in range(4))
    to_image = _random(4, (sizes.batch, 2, 3), "float32")
    permutation = np.arange(sizes.joints)[::-1].copy()
    emulation.clear_launches()
    keypoints, scores = row_ops.simcc_decode(emulation, x, y, 2.0, to_image=to_image)
    yield _done(emulation, "simcc_decode", x, y, to_image, keypoints, scores)
    row_ops.simcc_decode(
        emulation,
        x,
        y,
        2.0,
        flipped=(mirrored_x, mirrored_y, permutation),
        mirror_sum=sizes.student_bins - 2,
        to_image=to_image,
    )
    moved = (x, y, mirrored_x, mirrored_y, permutation, to_image, keypoints, scores)
    yield _done(emulation, "simcc_decode with flip test", *moved)


_MOST_BLOCKS = 6  # that the dense ops run of each launch


def _plan_projector_cosine(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    wide = "float64" if sizes.dtype == "float64" else "float32"
    positions, targets = sizes.student_side**2, sizes.teacher_side**2
    inputs = (
        _random(0, (sizes.batch, sizes.joints, positions), sizes.dtype),
        _random(1, (sizes.projectors, targets, positions), sizes.dtype),
        _random(2, (sizes.projectors, targets), wide),
        _random(3, (sizes.batch, sizes.projectors, sizes.joints), wide),
        _random(4, (sizes.batch, sizes.joints, targets), sizes.dtype),
    )
    gradient = _random(5, (sizes.batch,), wide)
    emulation.configure(max_blocks=_MOST_BLOCKS)
    emulation.clear_launches()
    cosine, *_ = dense_ops.projector_cosine(emulation, *inputs)
    yield _done(emulation, "projector_cosine", *inputs, cosine)
    cosine, *gradients = dense_ops.projector_cosine(emulation, *inputs, gradient)
    output = _random(6, (sizes.batch, sizes.joints, targets), wide)  # kept, with a bit per projector
    bits = np.empty((-(-sizes.projectors // 8), *output.shape), np.uint8)
    launches = emulation.launches()
    forward = _bytes(*inputs, cosine, output, bits)
    yield Pass("projector_cosine, kept for backward", launches[:2], forward)
    yield Pass("projector_cosine backward", launches[2:], _bytes(*inputs, gradient, output, bits, *gradients))


def _plan_sau_select(emulation: Emulation, sizes: LaunchSizes) -> Iterator[Pass]:
    wide = "float64" if sizes.dtype == "float64" else "float32"
    channels, side, kernels = sizes.joints, sizes.student_side, (3, 5, 7, 7)
    hidden, maps = max(channels // 16, 32), (len(kernels), channels)
    feature = _random(0, (sizes.batch, channels, side, side), sizes.dtype)
    weights = [_random(k, (channels, channels, k, k), sizes.dtype) for k in kernels]
    shapes: list[tuple[int, ...]] = [maps, maps, maps, maps, (hidden, channels), (hidden,)]
    shapes += [(sizes.projectors, channels, hidden), (sizes.projectors, channels)]
    parameters = [abs(_random(i, shape, wide)) for i, shape in enumerate(shapes)]
    gradient = _random(9, (sizes.batch, sizes.projectors, channels), wide)
    inputs = (feature, weights, *parameters)
    call: Any = dense_ops.sau_select
    read = (feature, *weights, *parameters)
    emulation.configure(max_blocks=_MOST_BLOCKS)
    for training in (False, True):
        emulation.clear_launches()
        outputs = call(emulation, *inputs, training=training)
        yield _done(emulation, f"sau_select, {'training' if training else 'evaluation'}", *read, *outputs)
    gradients = call(emulation, *inputs, gradient, training=True)[3:]
    responses = np.empty((len(kernels), *feature.shape), wide)
    launches = emulation.launches()[3:]
    yield Pass("sau_select backward", launches, _bytes(*read, gradient, responses, *gradients))


_PLANS: list[Callable[[Emulation, LaunchSizes], Iterator[Pass]]] = [
    _plan_cca_kl,
    _plan_simcc_kl,
    _plan_simcc_decode,
    _plan_projector_cosine,
    _plan_sau_select,
]
