"""Floors: the least time that reading, writing, exponentials and multiply-adds take on this processor."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.harness.case import Loop, total_bytes
from bench.harness.native import NativeError, build

_ALIGNMENT = 64


@functools.cache
def library() -> ctypes.CDLL:
    """limits.c, compiled for this processor.

    Raises:
        NativeError: it cannot be compiled here.
    """
    return ctypes.CDLL(str(build("limits.c")))


def missing() -> str | None:
    """Why there are no floors here, if so."""
    try:
        library()
    except NativeError as error:
        return f"floors need a C compiler with OpenMP: {error}"
    return None


def floor(
    *,
    reads: Sequence[Tensor] = (),
    writes: Sequence[Tensor] = (),
    exponentials: int = 0,
    multiply_adds: int = 0,
) -> Mapping[str, Loop]:
    """Parts of a floor: read and write tensors once, compute so many exponentials and multiply-adds.

    What is read and written is memory of the size of these tensors, in one piece. Empty on other devices than
    the CPU and where the compiler is missing.
    """
    if any(tensor.device.type != "cpu" for tensor in reads) or missing():
        return {}
    parts: dict[str, Loop] = {}
    if reads:
        parts["read"] = _pass(library().read_bytes, total_bytes(*reads))
    if writes:
        parts["write"] = _pass(library().write_bytes, total_bytes(*writes))
    if exponentials:
        parts["exponentials"] = _count(library().exponentials, exponentials)
    if multiply_adds:
        parts["multiply-adds"] = _count(library().multiply_adds, multiply_adds)
    return parts


def _pass(function: ctypes._NamedFuncPointer, size: int) -> Loop:
    """Go once through so many bytes."""
    memory = torch.ones(size + _ALIGNMENT, dtype=torch.uint8)  # written to: only then it has pages of its own
    address = -(-memory.data_ptr() // _ALIGNMENT) * _ALIGNMENT

    def loop(repeats: int, keep_alive: Tensor = memory) -> None:
        function(ctypes.c_void_p(address), ctypes.c_size_t(size), torch.get_num_threads(), repeats)

    return loop


def _count(function: ctypes._NamedFuncPointer, count: int) -> Loop:
    return lambda repeats: function(ctypes.c_size_t(count), torch.get_num_threads(), repeats)
