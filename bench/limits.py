"""Floors: the least time that reading, writing, exponentials and multiply-adds take on this processor."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.case import Loop, total_bytes
from bench.native import NativeError, build

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
    """Parts of a floor: read and write these tensors once, compute so many exponentials and multiply-adds.

    Empty on other devices than the CPU and where the compiler is missing. Large tensors are read one after the
    other from where they lie; nothing is written to them but to memory of the same size.
    """
    if any(tensor.device.type != "cpu" for tensor in reads) or missing():
        return {}
    parts: dict[str, Loop] = {}
    if reads:
        parts["read"] = _in_turn([_read(tensor) for tensor in reads])
    if writes:
        parts["write"] = _write(torch.empty(total_bytes(*writes) + _ALIGNMENT, dtype=torch.uint8))
    if exponentials:
        parts["exponentials"] = _count(library().exponentials, exponentials)
    if multiply_adds:
        parts["multiply-adds"] = _count(library().multiply_adds, multiply_adds)
    return parts


def _aligned(tensor: Tensor) -> tuple[int, int]:
    """Address and bytes of what lies between the first and the last border of a vector."""
    begin = -(-tensor.data_ptr() // _ALIGNMENT) * _ALIGNMENT
    return begin, max(tensor.data_ptr() + total_bytes(tensor) - begin, 0)


def _read(tensor: Tensor) -> Loop:
    tensor = tensor.detach().contiguous()
    address, size = _aligned(tensor)

    def loop(repeats: int, keep_alive: Tensor = tensor) -> None:
        library().read_bytes(
            ctypes.c_void_p(address), ctypes.c_size_t(size), torch.get_num_threads(), repeats
        )

    return loop


def _write(target: Tensor) -> Loop:
    address, size = _aligned(target)

    def loop(repeats: int, keep_alive: Tensor = target) -> None:
        library().write_bytes(
            ctypes.c_void_p(address), ctypes.c_size_t(size), torch.get_num_threads(), repeats
        )

    return loop


def _count(function: ctypes._NamedFuncPointer, count: int) -> Loop:
    return lambda repeats: function(ctypes.c_size_t(count), torch.get_num_threads(), repeats)


def _in_turn(loops: list[Loop]) -> Loop:
    def loop(repeats: int) -> None:
        for each in loops:
            each(repeats)

    return loop
