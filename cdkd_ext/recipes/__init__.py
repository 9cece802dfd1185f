"""Configurations that come with the package: one YAML file per experiment.

A recipe may name another as its `base` and then holds only what differs. Files that are nothing but a base start with
an underscore.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cdkd_ext.errors import check_option

_FOLDER = Path(__file__).parent


def list_recipes() -> list[str]:
    """Names that `--recipe` takes."""
    return sorted(path.stem for path in _FOLDER.glob("[!_]*.yaml"))


def load_recipe(name: str, sections: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the options that a recipe sets, those of its bases included.

    Args:
        name: one of `list_recipes()`.
        sections: the top-level options to keep; None keeps all.

    Raises:
        InputError: there is no recipe of that name.
    """
    check_option("recipe", name, list_recipes())
    options = _load(name)
    return {key: value for key, value in options.items() if sections is None or key in sections}


def combine_recipes(names: Sequence[str]) -> dict[str, Any]:
    """Return the options that several recipes set together, each one changing those before it.

    Raises:
        InputError: there is no recipe of such a name.
    """
    combined: dict[str, Any] = {}
    for name in names:
        combined = _merged(combined, load_recipe(name))
    return combined


def _load(name: str) -> dict[str, Any]:
    options = deepcopy(_read(_FOLDER / f"{name}.yaml"))
    base = options.pop("base", None)
    return _merged(_load(base), options) if base else options


@cache
def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` in it: sections are merged, anything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = _merged(base[key], value) if both else value
    return result
