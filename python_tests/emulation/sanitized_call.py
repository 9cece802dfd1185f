"""Runs one op of the library that CDKD_EMULATION names, on a few shapes, in an own process: argument is the op."""

import os
import sys
from pathlib import Path

import numpy as np

from cdkd_ext.emulation.cca_kl import cca_kl as run_cca_kl
from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.scale_rows import scale_rows as run_scale_rows
from cdkd_ext.emulation.simcc_decode import simcc_decode as run_simcc_decode
from cdkd_ext.emulation.simcc_kl import simcc_kl as run_simcc_kl


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def cca_kl(emulation: Emulation) -> None:
    for rows, classes, bins, dtype in (
        (5, 33, 89, "float32"),
        (3, 96, 768, "float16"),
        (4099, 9, 11, "float32"),
    ):
        # an element late: other threads then write the gradient than have read the logits
        student = normal(rows * classes + 1, dtype=dtype)[1:].reshape(rows, classes)
        run_cca_kl(emulation, student, normal(rows, bins, dtype=dtype), np.array(1.5))
    weights = np.array([0, 1, 0, 2, 1], np.float32)
    for classes, bins, offset in ((67, 33, 40.5), (4000, 8500, -40.5), (33, 12, -9.0)):
        options = {"offset": offset, "weights": weights, "probabilities": True}
        teacher = abs(normal(5, bins))
        run_cca_kl(emulation, normal(5, classes), teacher, np.array(1.5), **options)


def simcc_kl(emulation: Emulation) -> None:
    for bins in (33, 1024):
        run_simcc_kl(emulation, normal(5, bins), np.array([0.0, 1.0, 7.5, 32.0, -9.0]), sigma=2.0)


def simcc_decode(emulation: Emulation) -> None:
    flipped = (normal(2, 3, 65), normal(2, 3, 40), np.array([0, 2, 1]))
    run_simcc_decode(emulation, normal(2, 3, 65), normal(2, 3, 40), 2.0, flipped=flipped, mirror_sum=63)


def scale_rows(emulation: Emulation) -> None:
    run_scale_rows(emulation, normal(9, 35), normal(9), normal(9))


if __name__ == "__main__":
    chosen = Emulation(Path(os.environ["CDKD_EMULATION"]))
    for schedule in (0, 1, 5):
        chosen.configure(schedule=schedule)
        globals()[sys.argv[1]](chosen)
