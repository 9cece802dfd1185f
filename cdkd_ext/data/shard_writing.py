"""Shards written by several processes at a time, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cdkd_ext.data.shards import (
    CHECKSUM,
    LENGTH,
    MANIFEST,
    START,
    Array,
    Manifest,
    Shard,
    read_manifest,
    shard_path,
)
from cdkd_ext.errors import InputError, check
from cdkd_ext.files import remove_leftovers, replacing

# some rows: for each column an array with a row for each, or a byte string for each
Chunk = Mapping[str, Array | Sequence[bytes]]
_logger = logging.getLogger(__name__)


def write_shards(folder: Path, manifest: Manifest, produce: Callable[[int, int], Iterator[Chunk]]) -> Path:
    """Write the shards that a folder lacks; return the folder.

    Any number of processes may do so for one folder at a time, also on several machines that share its disk: each takes
    shards that no other is at, and all return once every shard is there. What a killed process had begun is begun again.

    Args:
        folder: where to write; it may hold some of the shards already.
        manifest: what the folder is to hold.
        produce: yields the rows from its first argument up to its second, in order, in chunks of any size that all have
            the same columns, types and shapes.

    Raises:
        InputError: the folder holds something else, a shard there is not whole, or nothing can be written, as on a full disk.
            Whole shards stay.

    Example:
        ```python
        manifest = Manifest.of({"squares": "of the row's number"}, rows=10_000)
        write_shards(Path("squares"), manifest, lambda start, stop: iter([{"square": np.arange(start, stop) ** 2}]))
        ```
    """
    with _disk_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{MANIFEST}.lock"):
            if not (folder / MANIFEST).exists():
                with replacing(folder / MANIFEST) as temporary:
                    temporary.write_text(manifest.text(), encoding="utf-8")
        found = read_manifest(folder)
        manifest.check_found(found, folder)
        # first what nobody is at, then what those left who were at it
        for wait in (False, True):
            for shard in range(found.shards):
                _provide(folder, found, shard, produce, wait=wait)
    return folder


def row_bytes(chunk: Chunk) -> float:
    """Bytes that a row of such a chunk takes, on average: its record with the checksum, and its byte strings."""
    strings = [string for name in _string_names(chunk) for string in chunk[name]]
    records = _records(chunk, 0)
    return records.dtype.itemsize + sum(map(len, strings)) / len(records)


def _provide(
    folder: Path,
    manifest: Manifest,
    shard: int,
    produce: Callable[[int, int], Iterator[Chunk]],
    *,
    wait: bool,
) -> None:
    """Write a shard unless it is there, or another process is at it and `wait` is false."""
    path = shard_path(folder, shard)
    start, stop = manifest.range(shard)
    lock = path.with_name(f".{path.name}.lock")
    if not path.exists():
        with _locked(lock, wait=wait) as owned:
            if not owned:
                return
            if not path.exists():
                remove_leftovers(path)
                _write(path, stop - start, produce(start, stop))
                _logger.info("%s: shard %d of %d is written", folder, shard + 1, manifest.shards)
            lock.unlink(missing_ok=True)
    elif wait:
        Shard(path, stop - start)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that the system takes back from a process that dies; yields false where another has it."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _write(path: Path, rows: int, chunks: Iterator[Chunk]) -> None:
    """Write a shard's file: records first, so that they can be mapped, then byte strings."""
    strings: list[bytes] = []
    length = written = 0
    with replacing(path) as temporary, _disk_named(path.parent), open(temporary, "wb") as file:
        for chunk in chunks:
            records = _records(chunk, length)
            if not written:
                header = {
                    "descr": np.lib.format.dtype_to_descr(records.dtype),
                    "fortran_order": False,
                    "shape": (rows,),
                }
                np.lib.format.write_array_header_1_0(file, header)
            for name in _string_names(chunk):
                strings += chunk[name]
                length += sum(map(len, chunk[name]))
            file.write(records.tobytes())
            written += len(records)
        check(written == rows, f"{path}: rows", written, str(rows))
        file.writelines(strings)
        file.flush()
        # before the name: what has its name is whole even if the power fails
        os.fsync(file.fileno())


def _string_names(chunk: Chunk) -> list[str]:
    return [name for name, column in chunk.items() if not isinstance(column, np.ndarray)]


def _records(chunk: Chunk, place: int) -> Array:
    """The records of a chunk whose byte strings begin at a place behind all records."""
    names = _string_names(chunk)
    rows = len(next(iter(chunk.values())))
    columns: dict[str, Any] = {name: column for name, column in chunk.items() if name not in names}
    for name in names:
        lengths = np.array([len(string) for string in chunk[name]], np.uint64)
        columns[START + name] = place + np.cumsum(lengths) - lengths
        columns[LENGTH + name] = lengths
        place += int(lengths.sum())
    dtype = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    records = np.zeros(rows, [*dtype, (CHECKSUM, "<u4")])
    for name, column in columns.items():
        records[name] = column
    for row in range(rows):
        checksum = zlib.crc32(records[row].tobytes()[:-4])
        for name in names:
            checksum = zlib.crc32(chunk[name][row], checksum)
        records[row][CHECKSUM] = checksum
    return records


@contextmanager
def _disk_named(folder: Path) -> Iterator[None]:
    """Turn what a disk raises into one line."""
    try:
        yield
    except (InputError, OSError) as error:
        # `replacing` has made one line of it already
        cause = error.__cause__ if isinstance(error, InputError) else error
        if not isinstance(cause, OSError):
            raise
        kept = "; whole shards are kept, and the same command goes on from there"
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
        expected = f"room on the disk{kept}" if full else "a writable folder"
        raise InputError(f"{folder}: expected {expected}, got {cause.strerror or cause}") from error
