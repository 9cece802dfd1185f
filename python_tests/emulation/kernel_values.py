"""Random arrays of every type that kernels read, and how near a result must be."""

from __future__ import annotations

import numpy as np

# uint16 stands for bfloat16; by the type of the result
TOLERANCE = {"float64": 1e-11, "float32": 2e-5, "uint16": 1e-2, "float16": 2e-3}
TYPES = list(TOLERANCE)


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Round to the nearest bfloat16, as its bits."""
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def convert(x: np.ndarray, dtype: str) -> np.ndarray:
    return to_bfloat16(x) if dtype == "uint16" else np.ascontiguousarray(x.astype(dtype))


def exact(x: np.ndarray) -> np.ndarray:
    """The values of an array of any of the types, in float64."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def normal(seed: int, *shape: int, dtype: str = "float32", scale: float = 1.0) -> np.ndarray:
    return convert(np.random.default_rng(seed).normal(size=shape) * scale, dtype)


def assert_near(found: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> None:
    tolerance = TOLERANCE[found.dtype.name]
    np.testing.assert_allclose(exact(found), expected, rtol=tolerance, atol=tolerance * scale)
