"""Rows of arrays and byte strings in checksummed files, read at random."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, fail

Array = npt.NDArray[Any]
FORMAT = 1
MANIFEST = "manifest.json"
CHECKSUM, START, LENGTH = "checksum", "start of ", "length of "
_MOST_SHARDS = 512  # a reader keeps every file open
_FEWEST_ROWS = 1024


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards is to hold.

    Attributes:
        identity: everything that the rows depend on, as JSON holds it.
        rows: how many rows there are in all shards.
        shard_rows: rows of every shard but the last, which may be shorter.

    Example:
        >>> from cdkd_ext.data.shards import Manifest
        >>> Manifest.of({"teacher": "w32"}, rows=150_000).shards
        147
    """

    identity: dict[str, Any]
    rows: int
    shard_rows: int

    @classmethod
    def of(cls, identity: Mapping[str, object], rows: int, shard_rows: int | None = None) -> Manifest:
        """The manifest of new shards.

        Args:
            identity: everything that the rows depend on; what JSON does not know becomes text.
            rows: how many rows there will be.
            shard_rows: rows of a shard; None takes 1024, or more so that there are at most 512 shards.

        Raises:
            InputError: a number is not positive.
        """
        check(rows > 0, "rows", rows, "a positive number")
        chosen = max(_FEWEST_ROWS, -(-rows // _MOST_SHARDS)) if shard_rows is None else shard_rows
        check(chosen > 0, "shard_rows", chosen, "a positive number")
        return cls(json.loads(json.dumps(identity, default=str)), rows, chosen)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_rows)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell these rows from others, for the folder's name."""
        text = json.dumps([FORMAT, self.identity, self.rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def range(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the row behind its last one."""
        start = shard * self.shard_rows
        return start, min(start + self.shard_rows, self.rows)

    def text(self) -> str:
        """The manifest's file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    def check_found(self, found: Manifest, folder: Path) -> None:
        """Check that what a folder holds is what this manifest says; how it is split may differ.

        Raises:
            InputError: names the first difference.
        """
        path = folder / MANIFEST
        for name in sorted(self.identity.keys() | found.identity.keys()):
            expected, got = self.identity.get(name), found.identity.get(name)
            check(expected == got, f"{path}: {name}", got, f"{expected} (these rows are of something else)")
        check(found.rows == self.rows, f"{path}: rows", found.rows, str(self.rows))


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder of shards is to hold.

    Raises:
        InputError: there is no manifest, or none of this version of the format.
    """
    path = folder / MANIFEST
    again = f"delete {folder} and run the same command to make it again"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format")
        manifest = Manifest(**values)
        sound = manifest.rows > 0 and manifest.shard_rows > 0 and isinstance(manifest.identity, dict)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fail(str(path), f"{type(error).__name__}: {error}", f"the manifest of stored rows; {again}")
    check(version == FORMAT, f"{path}: format", version, f"{FORMAT}; {again}")
    check(sound, str(path), "other values", f"a folder's identity and positive numbers of rows; {again}")
    return manifest


def shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard."""
    return folder / f"{shard:05d}.npy"


class Shards:
    """Reads rows from a folder of shards, each row with its checksum.

    Args:
        folder: where `write_shards` wrote.
        manifest: what it must hold; None takes what is there.

    Attributes:
        manifest: what the folder holds.

    Raises:
        InputError: the folder holds something else, or a shard is missing or not whole; names the file and says how to
            make it again.

    Example:
        ```python
        rows = Shards(Path("cache/teacher-0123456789abcdef")).read([7, 7000])
        ```
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None) -> None:
        self.manifest = read_manifest(folder)
        if manifest is not None:
            manifest.check_found(self.manifest, folder)
        self._shards = [
            Shard(shard_path(folder, shard), stop - start)
            for shard in range(self.manifest.shards)
            for start, stop in [self.manifest.range(shard)]
        ]

    def __len__(self) -> int:
        """Number of rows."""
        return self.manifest.rows

    def read(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return the columns of some rows in their order: arrays with a row for each, or lists of byte strings.

        Raises:
            IndexError: there is no such row.
            InputError: a row is not what was written; names the file.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"rows: expected 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}")
        first = self._shards[0]
        records = np.empty(len(wanted), first.records.dtype)
        strings: dict[str, list[bytes]] = {name: [] for name in first.string_names}
        for place, row in enumerate(wanted.tolist()):
            shard, row = divmod(row, self.manifest.shard_rows)
            records[place], found = self._shards[shard].read(row)
            for name, string in found.items():
                strings[name].append(string)
        return {name: records[name] for name in first.array_names} | strings


class Shard:
    """One file of shards: a .npy array of records, and behind it the byte strings that they point to.

    Args:
        path: the file.
        rows: how many it must have.

    Raises:
        InputError: it is missing or not whole.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        try:
            self.records: Array = np.load(path, mmap_mode="r", allow_pickle=False)
            self._bytes = np.memmap(path, np.uint8, "r").data
        except FileNotFoundError:
            self._damaged("no such file")
        except (OSError, ValueError, EOFError) as error:
            self._damaged(" ".join(str(error).split()))
        names = self.records.dtype.names or ()
        if self.records.shape != (rows,) or CHECKSUM not in names:
            self._damaged(f"an array {self.records.shape} of {self.records.dtype}")
        self.string_names = [name.removeprefix(START) for name in names if name.startswith(START)]
        self.array_names = [name for name in names if not name.startswith((START, LENGTH, CHECKSUM))]
        self._header = int(self.records.offset)
        self._strings = self._header + self.records.nbytes
        last = self.records[-1]
        ends = [int(last[START + name]) + int(last[LENGTH + name]) for name in self.string_names]
        size, expected = len(self._bytes), self._strings + max(ends, default=0)
        if size != expected:
            self._damaged(f"{size} bytes instead of {expected}")

    def read(self, row: int) -> tuple[Any, dict[str, bytes]]:
        """Return a row's record and its byte strings.

        Raises:
            InputError: they are not what was written.
        """
        record = self.records[row]
        size = self.records.dtype.itemsize
        place = self._header + row * size
        # the checksum is the record's last member
        checksum = zlib.crc32(self._bytes[place : place + size - 4])
        strings = {}
        for name in self.string_names:
            start = self._strings + int(record[START + name])
            strings[name] = bytes(self._bytes[start : start + int(record[LENGTH + name])])
            checksum = zlib.crc32(strings[name], checksum)
        if checksum != record[CHECKSUM]:
            self._damaged(f"other bytes in row {row} than were written")
        return record, strings

    def _damaged(self, got: str) -> NoReturn:
        fail(str(self.path), got, "a whole shard; delete it and run the same command to make it again")
