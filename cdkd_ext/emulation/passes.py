"""What the ops' launch plans consist of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cdkd_ext.emulation.library import Emulation, Launch
from cdkd_ext.errors import check, check_option


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


MOST_BLOCKS = 6  # that ops of matrix products run of each launch


def random(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Normal numbers of one of the types of `LaunchSizes`; a uint16 array holds bfloat16."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def count_bytes(*arrays: np.ndarray | None) -> int:
    """Bytes that the arrays take."""
    return sum(array.nbytes for array in arrays if array is not None)


def done(emulation: Emulation, name: str, *moved: np.ndarray | None) -> Pass:
    """Take the launches made so far as a pass, which must move at least the arrays."""
    launches = emulation.launches()
    emulation.clear_launches()
    return Pass(name, launches, count_bytes(*moved))
