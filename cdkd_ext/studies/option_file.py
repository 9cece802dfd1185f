"""Options that several runs share, in a file: each run has a folder of its own, so paths in it become absolute."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdkd_ext.errors import check
from cdkd_ext.files import read_yaml

# a cache need not be there yet; others may also be the name of something
_MADE = ("data.cache",)
_PATHS = (
    *_MADE,
    *(f"data.{name}" for name in ("detector", "image_boxes", "images", "joints")),
    "model.weights",
)


def read_options(argument: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file of options, in sections, with absolute paths.

    Args:
        argument: that names the file, for messages.
        path: the file; paths in it are relative to the working folder, as on the command line.

    Raises:
        InputError: the file cannot be read, or is no mapping of options that JSON can hold.
    """
    content = read_yaml(path)
    check(isinstance(content, dict), argument, path, "a YAML mapping of options")
    try:
        json.dumps(content)
    except TypeError as error:
        check(
            False,
            argument,
            f"{path} with a value that is no text or number ({error})",
            "options as they are typed",
        )
    return {name: _located(name, value) for name, value in content.items()}


def located(name: str, value: Any) -> Any:
    """A path of an option, or several, as it is to be given from another folder; all else as it is."""
    if isinstance(value, list):
        return [located(name, one) for one in value]
    if name not in _PATHS or not isinstance(value, str) or not value:
        return value
    return str(Path(value).absolute()) if name in _MADE or Path(value).exists() else value


def _located(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {inner: _located(f"{name}.{inner}", one) for inner, one in value.items()}
    return located(name, value)
