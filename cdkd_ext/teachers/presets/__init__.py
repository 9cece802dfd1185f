"""Descriptions of well-known pose networks, by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from cdkd_ext.errors import check_option, fail
from cdkd_ext.files import read_yaml

_FOLDER = Path(__file__).parent
_RECOGNIZED_BY = "recognized_by"
# what detectors call their outputs
_OF_DETECTORS = frozenset({"boxes", "bboxes", "dets", "detections", "labels", "classes", "class_ids"})


def list_presets() -> list[str]:
    """Names of the presets.

    Example:
        >>> from cdkd_ext.teachers import list_presets
        >>> "movenet" in list_presets()
        True
    """
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """Return the fields of a preset's description.

    Raises:
        InputError: there is no such preset.
    """
    return {key: value for key, value in _read(name).items() if key != _RECOGNIZED_BY}


def recognized_preset(outputs: Collection[str], source: str) -> str:
    """Return the name of the only preset that a network's outputs fit.

    Args:
        outputs: their names.
        source: the network's file, which messages name.

    Raises:
        InputError: none fits, or several do.
    """
    found = [name for name in list_presets() if _fits(_read(name), outputs)]
    names = ", ".join(outputs)
    if len(found) == 1:
        return found[0]
    if _OF_DETECTORS.intersection(outputs):
        fail(
            f"teacher {source}",
            f"the outputs {names} of a detector",
            "a pose network, whose outputs tell joints",
        )
    presets = ", ".join(list_presets())
    where = "`preset` in a YAML file beside `file`; --teacher_options.preset of a teacher, --preset of `cdkd adapt`"
    expected = f"one of {presets} ({where})"
    fail("preset", f"nothing for {source} with the outputs {names}", expected)


def _read(name: str) -> dict[str, Any]:
    check_option("teacher_options.preset", name, list_presets())
    return dict(read_yaml(_FOLDER / f"{name}.yaml"))


def _fits(preset: dict[str, Any], outputs: Collection[str]) -> bool:
    wanted = preset.get(_RECOGNIZED_BY)
    return wanted is not None and set(wanted) <= set(outputs)
