"""Outputs appear whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from cdkd_ext.errors import InputError, check, fail

_LONGEST_NAME = 255  # bytes, of a file
_TOKEN = 8  # digits that make a temporary name one of its own

_MOST_VALUES = 100_000  # of a YAML file
# what `content_digest` reads of a large file
_SAMPLES, _SAMPLE = 8, 8192
_BLOCK = 1 << 20
_UNCOMPRESSED = {".bmp", ".dib", ".pbm", ".pgm", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff"}


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The temporary name keeps the suffix, so writers that look at it (of images, for example) work. The file's permissions
    follow the umask, whatever the writer does.

    Raises:
        InputError: the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    with _naming(path, "a writable folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(_temporary_name(path.stem, path.suffix))
        # not of tempfile, which makes it private to its user; reading the umask instead would change it for a moment
        temporary.touch(exist_ok=False)
    try:
        with _naming(path, "a disk that takes it"):
            mode = temporary.stat().st_mode
            yield temporary
            # a writer may have put a file of its own in its place
            temporary.chmod(mode)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def content_digest(path: str | os.PathLike[str]) -> str:
    """What tells a file of images or video from others: its size, and its bytes, all of them or samples of a large file.

    Where the file lies and when it was copied is no matter. A large file is read at its beginning, at its end and at
    `_SAMPLES` - 2 places between: of compressed images and videos everything after a change is another sequence of bytes.
    Formats without compression are read whole.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        if size <= _SAMPLES * _SAMPLE or path.suffix.lower() in _UNCOMPRESSED:
            while block := file.read(_BLOCK):
                digest.update(block)
        else:
            for number in range(_SAMPLES):
                file.seek(number * (size - _SAMPLE) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def known_digest(path: str | os.PathLike[str]) -> str:
    """`content_digest`, computed once in a process as long as the file's size and time stay what they are.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path).absolute()
    status = path.stat()
    return _remembered_digest(path, status.st_size, status.st_mtime_ns)


@cache
def _remembered_digest(path: Path, size: int, time: int) -> str:
    return content_digest(path)


def check_folder(folder: Path) -> None:
    """Check, before the work for it, that there is a folder to write into, or can be.

    Raises:
        InputError: it is a file, or nothing can be written there.
    """
    if folder.exists() and not folder.is_dir():
        fail("output", f"the file {folder}", "a folder")
    _check_takes_files("output", folder.absolute() / "file", folder, "a folder that can be written")


def check_writable(argument: str, path: str | os.PathLike[str]) -> None:
    """Check, before the work for it, that a file can be made: it is no folder, and what is above it a folder to write into.

    Raises:
        InputError: names the argument.
    """
    check(not Path(path).is_dir(), argument, f"the folder {path}", "a file")
    _check_takes_files(argument, Path(path).absolute(), path, "a file in a folder that can be written")


def _check_takes_files(argument: str, path: Path, named: str | os.PathLike[str], expected: str) -> None:
    """Check that a file can be made where an absolute path says, in a folder that may have to be made first."""
    above = next(folder for folder in path.parents if folder.exists())
    check(above.is_dir(), argument, f"{named}, where {above} is a file", "a file in a folder")
    try:
        # no permission tells of a disk that takes nothing
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        fail(argument, f"{named}: {error.strerror}", expected)


def write_json(value: Any, path: str | os.PathLike[str], *, indent: int | None = 1) -> None:
    """Write plain data as JSON; what was not measured (nan) becomes null, which JSON can say."""
    text = json.dumps(_without_nan(value), indent=indent, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a YAML file of plain data.

    Raises:
        InputError: the file cannot be read, is no YAML, or its aliases describe more values than anybody writes.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
        values = _count_values(node, {})
        check(values <= _MOST_VALUES, str(path), f"{values:.3g} values", f"at most {_MOST_VALUES} values")
        return yaml.safe_load(text)
    except OSError as error:
        fail(str(path), error.strerror or "an unreadable file", "a readable YAML file")
    except InputError:
        raise
    # what a tag or a date does not fit can raise anything in YAML's constructors
    except Exception as error:
        fail(str(path), " ".join(str(error).split()) or type(error).__name__, "valid YAML")


def _count_values(node: Any, counted: dict[int, float]) -> float:
    """Count the values of a node of YAML, those behind an alias at each place; infinite if it holds itself."""
    children = node.value if node is not None and isinstance(node.value, list) else []
    if id(node) not in counted:
        counted[id(node)] = math.inf
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        counted[id(node)] = 1 + sum(_count_values(part, counted) for part in parts)
    return counted[id(node)]


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it on failure.

    Raises:
        InputError: the parent folder cannot be created or written, or `path` has come to hold something meanwhile.
    """
    path = Path(path).absolute()
    with _naming(path, "a writable folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(_temporary_name(path.name))
        temporary.mkdir()
    try:
        with _locked(temporary), _naming(path, "a disk that takes it"):
            yield temporary
        with _naming(path, "a writable folder"):
            # an empty folder in the way is replaced, one with something in it is not
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(*paths: str | os.PathLike[str]) -> None:
    """Remove what killed processes left of files and folders that `replacing` or `new_folder` was to write.

    A folder that a living process is writing stays. A file's leftover goes, so call it for files that nobody else writes.

    Args:
        paths: of the files and folders, which themselves stay as they are.
    """
    for path in map(Path, paths):
        names = (_leftover_pattern(path.stem, path.suffix), _leftover_pattern(path.name))
        found = list(path.parent.iterdir()) if path.parent.is_dir() else []
        for leftover in found:
            if not any(pattern.fullmatch(leftover.name) for pattern in names):
                continue
            if not leftover.is_dir():
                leftover.unlink(missing_ok=True)
            elif not _is_locked(leftover):
                shutil.rmtree(leftover, ignore_errors=True)


def _temporary_name(stem: str, suffix: str = "") -> str:
    return f".{_fitting(stem, suffix)}-{secrets.token_hex(_TOKEN // 2)}{suffix}"


def _fitting(stem: str, suffix: str) -> str:
    """As much of a stem as leaves room for what a temporary name has beside it."""
    room = _LONGEST_NAME - len(os.fsencode(suffix)) - _TOKEN - 2
    return os.fsencode(stem)[:room].decode(errors="ignore") if len(os.fsencode(stem)) > room else stem


def _leftover_pattern(stem: str, suffix: str = "") -> re.Pattern[str]:
    return re.compile(rf"\.{re.escape(_fitting(stem, suffix))}-[0-9a-f]{{{_TOKEN}}}{re.escape(suffix)}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    _locks.add(descriptor)
    try:
        with suppress(OSError):  # not every network's file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        if descriptor in _locks:
            _locks.remove(descriptor)
            os.close(descriptor)


def _leave_locks() -> None:
    """In a forked process: the lock is its parent's, and must not outlive it."""
    while _locks:
        os.close(_locks.pop())


_locks: set[int] = set()
os.register_at_fork(after_in_child=_leave_locks)


def _is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _naming(path: Path, expected: str) -> Iterator[None]:
    """Turn a system error into one line about `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: expected {expected}, got {error.strerror or error}") from error
