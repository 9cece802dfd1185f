"""Reading JSON files field by field, with messages that name the file and the field."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from cdkd_ext.errors import check, fail


class JsonObject:
    """An object of a JSON file whose fields are checked as they are read.

    Args:
        value: what the file holds.
        place: the file and the field of `value`, for messages.
        prefix: what messages put before the name of a field of `value`.
    """

    def __init__(self, value: Any, place: str, prefix: str) -> None:
        check(isinstance(value, dict), place, type(value).__name__, "an object")
        self.value: dict[str, Any] = value
        self.prefix = prefix

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> JsonObject:
        """Read a file that holds one object.

        Raises:
            InputError: the file cannot be read or is not JSON.
        """
        return cls(_load(str(path)), str(path), f"{path}: ")

    @classmethod
    def read_list(cls, path: str | os.PathLike[str]) -> Iterator[JsonObject]:
        """Read a file that holds a list of objects, and yield them.

        Raises:
            InputError: the file cannot be read, is not JSON, or holds something else.
        """
        values = _load(str(path))
        check(isinstance(values, list), str(path), type(values).__name__, "a list of objects")
        for i, value in enumerate(values):
            yield cls(value, f"{path}: [{i}]", f"{path}: [{i}].")

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self.value.get(key) is not None

    def has_values(self, key: str) -> bool:
        """Whether the field is there and neither null nor an empty list."""
        return self.has(key) and self.value[key] != []

    def flag(self, key: str) -> bool:
        """Return whether the field is 1 or true; absent or null is false."""
        value = self.value.get(key)
        if value not in (None, False, True):
            fail(self.prefix + key, repr(value), "0, 1, false or true")
        return bool(value)

    def values(self, key: str) -> list[Any]:
        """Return a list of anything."""
        return list(self._get(key, list, "a list"))

    def objects(self, key: str) -> Iterator[JsonObject]:
        """Yield the objects of a list."""
        field = self.prefix + key
        for i, value in enumerate(self._get(key, list, "a list")):
            yield JsonObject(value, f"{field}[{i}]", f"{field}[{i}].")

    def text(self, key: str) -> str:
        """Return a string that is not empty."""
        value = self._get(key, str, "a string")
        check(value, self.prefix + key, "an empty string", "a string")
        return value

    def identity(self, key: str) -> int | str:
        """Return an id."""
        return self._get(key, (int, str), "an integer or a string")

    def number(self, key: str) -> float:
        """Return a finite number."""
        value = self._get(key, (int, float), "a finite number")
        check(_is_finite(value), self.prefix + key, value, "a finite number")
        return float(value)

    def numbers(self, key: str, count: int) -> list[float]:
        """Return a list of `count` finite numbers."""
        values = self._get(key, list, f"a list of {count} numbers")
        if len(values) != count:
            fail(self.prefix + key, f"{len(values)} values", f"a list of {count} numbers")
        for value in values:
            if not _is_finite(value):
                fail(self.prefix + key, repr(value), f"a list of {count} finite numbers")
        return values

    def rows(self, key: str, count: int, width: int) -> list[list[float]]:
        """Return a list of `count` lists of `width` finite numbers."""
        expected = f"a list of {count} lists of {width} finite numbers"
        rows = self._get(key, list, expected)
        if len(rows) != count:
            fail(self.prefix + key, f"{len(rows)} values", expected)
        for i, row in enumerate(rows):
            if not (isinstance(row, list) and len(row) == width and all(map(_is_finite, row))):
                fail(f"{self.prefix}{key}[{i}]", repr(row), f"a list of {width} finite numbers")
        return rows

    def _get(self, key: str, types: type | tuple[type, ...], expected: str) -> Any:
        if key not in self.value:
            fail(self.prefix + key, "no such key", expected)
        value = self.value[key]
        if not isinstance(value, types) or isinstance(value, bool):
            fail(self.prefix + key, f"{type(value).__name__} {value!r}", expected)
        return value


def _load(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except OSError as error:
        fail(path, error.strerror or "an unreadable file", "a readable JSON file")
    except (ValueError, RecursionError) as error:
        fail(path, f"malformed JSON ({error})" if os.path.getsize(path) else "an empty file", "valid JSON")


def _is_finite(value: Any) -> bool:
    # this bound also keeps float32 finite, and holds for integers too large for any float
    return type(value) in (int, float) and abs(value) < 1e30
