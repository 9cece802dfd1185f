"""The CUDA kernels and their launchers, compiled for the CPU: one fiber per thread, one block after the other."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

FORMATS = {"float64": 0, "float32": 1, "uint16": 2, "float16": 3}  # numpy has no bfloat16: its bits


_mirrors: list[type[Mirror]] = []


class Mirror(ctypes.Structure):
    """A struct that launchers take: its name is the class's, or `struct`, and its fields are `_fields_`.

    The library says how its compiler laid the struct out; a mirror that differs is refused.
    """

    struct: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.struct = cls.__dict__.get("struct", cls.__name__)
        _mirrors.append(cls)


class Rows(Mirror):
    """A contiguous matrix of `length` columns, or a list of scalars."""

    _fields_: ClassVar = [("data", ctypes.c_void_p), ("length", ctypes.c_int32), ("format", ctypes.c_int32)]


class MutableRows(Mirror):
    """Likewise, for results."""

    _fields_: ClassVar = [("data", ctypes.c_void_p), ("length", ctypes.c_int32), ("format", ctypes.c_int32)]


class _Traffic(Mirror):
    struct = "Traffic"
    _fields_: ClassVar = [("read", ctypes.c_uint64 * 5), ("written", ctypes.c_uint64 * 5)]


class _Record(Mirror):
    struct = "Launch"
    _fields_: ClassVar = [
        ("name", ctypes.c_char * 64),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("blocks_run", ctypes.c_uint64),
        ("traffic", _Traffic),
    ]


@dataclass(frozen=True)
class Launch:
    """One kernel launch, with the bytes it moved by the width of the access."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    blocks_run: int
    read_by_width: dict[int, int]
    written_by_width: dict[int, int]

    @property
    def read(self) -> int:
        """Bytes read from global memory."""
        return sum(self.read_by_width.values())

    @property
    def written(self) -> int:
        """Bytes written to global memory."""
        return sum(self.written_by_width.values())


class EmulationError(RuntimeError):
    """What a device would refuse, hang on, or leave undefined."""


class Emulation:
    """The compiled kernels.

    Args:
        path: the shared library; None for the installed one.

    Raises:
        ImportError: this build has none.
        EmulationError: a mirror differs from the library's struct.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            spec = importlib.util.find_spec("cdkd_ext")
            folders = spec.submodule_search_locations if spec else None
            found = [p for folder in folders or [] for p in Path(folder).glob("_cuda_emulation.*")]
            if not found:
                raise ImportError("cdkd_ext: this build has no emulation of the CUDA kernels (Linux only)")
            path = found[0]
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._library.cdkd_copy_launches.restype = ctypes.c_size_t
        self._checked: set[type[Mirror]] = set()
        for mirror in _mirrors:
            self._check_layout(mirror)

    def _check_layout(self, mirror: type[Mirror]) -> None:
        """Compare a mirror with the struct as the library's compiler laid it out."""
        try:
            function = getattr(self._library, f"cdkd_layout_{mirror.struct}")
        except AttributeError:
            raise EmulationError(f"{mirror.struct}: the emulation has no struct of this name") from None
        function.restype = ctypes.c_char_p
        size, *fields = function().decode().split()
        expected = {name: (int(at), int(bytes)) for name, at, bytes in (f.split(":") for f in fields)}
        found = {name: (getattr(mirror, name).offset, getattr(mirror, name).size) for name in _names(mirror)}
        for name in [*expected, *found]:
            if expected.get(name) != found.get(name):
                raise EmulationError(
                    f"{mirror.struct}.{name}: the kernels have {_place(expected.get(name))}, "
                    f"its mirror in Python has {_place(found.get(name))}"
                )
        if int(size) != ctypes.sizeof(mirror):
            raise EmulationError(
                f"{mirror.struct}: the kernels have {size} bytes, its mirror in Python {ctypes.sizeof(mirror)}"
            )
        self._checked.add(mirror)

    def configure(self, *, schedule: int = 0, max_blocks: int = 0) -> None:
        """Choose how the next launches run.

        Args:
            schedule: 0 runs threads and blocks in order, 1 reversed, any other number is a random seed.
            max_blocks: run only so many blocks of each launch, which makes results meaningless and scales the
                counted traffic; 0 runs all.
        """
        self._library.cdkd_configure(ctypes.c_uint64(schedule), ctypes.c_uint64(max_blocks))

    def call(self, op: str, arguments: Mirror) -> None:
        """Run the launcher of `op`.

        Raises:
            EmulationError: where a device would refuse, hang, or do something undefined.
        """
        if type(arguments) not in self._checked:
            self._check_layout(type(arguments))
        function = getattr(self._library, f"cdkd_{op}")
        function.restype = ctypes.c_char_p
        message = function(ctypes.byref(arguments))
        if message is not None:
            raise EmulationError(message.decode())

    def workspace(self, op: str, arguments: Mirror) -> int:
        """Bytes of memory that the launcher of `op` wants beside its results."""
        function = getattr(self._library, f"cdkd_{op}_workspace")
        function.restype = ctypes.c_int64
        return int(function(ctypes.byref(arguments)))

    def clear_launches(self) -> None:
        """Forget the launches made so far."""
        self._library.cdkd_clear_launches()

    def launches(self) -> list[Launch]:
        """Return the launches since they were cleared."""
        count = self._library.cdkd_copy_launches(None, ctypes.c_size_t(0))
        records = (_Record * count)()
        self._library.cdkd_copy_launches(records, ctypes.c_size_t(count))
        return [
            Launch(
                record.name.decode(),
                tuple(record.grid),
                tuple(record.block),
                record.shared_bytes,
                record.blocks_run,
                _by_width(record.traffic.read),
                _by_width(record.traffic.written),
            )
            for record in records
        ]


def _names(mirror: type[Mirror]) -> list[str]:
    return [field[0] for field in mirror._fields_]


def _place(field: tuple[int, int] | None) -> str:
    return "none" if field is None else f"{field[1]} bytes at {field[0]}"


def _by_width(bytes_of: Any) -> dict[int, int]:
    return {1 << i: count for i, count in enumerate(bytes_of) if count}


def rows(array: np.ndarray | None, *, scalars: bool = False) -> Rows:
    """Describe a contiguous array to a kernel: rows along its last axis, or scalars. uint16 holds bfloat16 bits.

    The array must outlive the call.
    """
    if array is None:
        return Rows(None, 0, 0)
    if not array.flags.c_contiguous:
        raise ValueError("array: expected a contiguous one")
    return Rows(array.ctypes.data, 1 if scalars else array.shape[-1], FORMATS[array.dtype.name])


def mutable_rows(array: np.ndarray | None) -> MutableRows:
    """Describe a contiguous array that a kernel writes: rows along its last axis."""
    described = rows(array)
    return MutableRows(described.data, described.length, described.format)


def pointer(array: np.ndarray | None) -> int | None:
    """Address of an array's elements, None for none."""
    return None if array is None else array.ctypes.data


def unset(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array that holds NaNs, so that what a kernel leaves out is seen."""
    result = np.empty(shape, dtype)
    result.view(np.uint8).fill(0xFF)
    return result


def launch(emulation: Emulation, op: str, call: Any, arrays: dict[str, np.ndarray | None]) -> None:
    """Point the call's fields at the arrays, and at a workspace of the size that the launcher wants; run it."""
    for name, array in arrays.items():
        setattr(call, name, pointer(array))
    call.workspace = None
    workspace = unset((emulation.workspace(op, call),), np.uint8)
    call.workspace = pointer(workspace)
    emulation.call(op, call)
