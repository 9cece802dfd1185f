"""Configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

from cdkd_ext._checks import check_option

_FOLDER = Path(__file__).parent


def list_recipes() -> list[str]:
    """Names that `--recipe` takes."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The YAML file of a recipe.

    Raises:
        InputError: there is no recipe of that name.
    """
    check_option("recipe", name, list_recipes())
    return _FOLDER / f"{name}.yaml"
