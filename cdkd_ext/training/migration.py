"""Configurations of version 0.1.0 in today's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cdkd_ext.checkpoints.migration import current_model_name
from cdkd_ext.errors import check

# old and new place of an option, sections by dots
_RENAMED = {
    "labels": "label_loss",
    "data.figures": "data.synthetic_people",
    "cca.visibility": "cca.annotated_weights",
}


def migrated(options: dict[str, Any], source: Path) -> dict[str, Any]:
    """Return options with the spellings of version 0.1.0 replaced; what is not of that version stays as it is.

    Args:
        options: as the YAML file holds them; not changed.
        source: the file, for messages; people that the run has drawn beside it are found again.

    Raises:
        InputError: an option is there in both spellings.
    """
    result = {name: dict(value) if isinstance(value, dict) else value for name, value in options.items()}
    data = result.get("data")
    if isinstance(data, dict) and "figures" in data and data.get("root") is None:
        drawn = source.parent / "figures"
        if (drawn / "train/annotations.json").is_file():
            data["root"] = str(drawn)
    for old, new in _RENAMED.items():
        _rename(result, old, new, source)
    model = result.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str):
        model["name"] = current_model_name(model["name"])
    return result


def _rename(options: dict[str, Any], old: str, new: str, source: Path) -> None:
    section, _, name = old.rpartition(".")
    found = options.get(section) if section else options
    if not isinstance(found, dict) or name not in found:
        return
    new_name = new.rpartition(".")[2]
    check(new_name not in found, f"{source}: {old}", f"both {old} and {new}", f"{new} alone")
    found[new_name] = found.pop(name)
