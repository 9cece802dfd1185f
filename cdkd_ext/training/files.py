"""Configurations as files."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from cdkd_ext.data import Augmentation, DataConfig, Photometric
from cdkd_ext.detectors import DetectionOptions
from cdkd_ext.errors import check, fail
from cdkd_ext.files import read_yaml, replacing
from cdkd_ext.training.migration import migrated


def save_config(config: Any, path: str | Path) -> None:
    """Write a configuration, a dataclass, as YAML that `read_config` and `--config` read."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False))


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the options of a run's config.yaml or of a recipe's file, of version 0.1.0 too.

    Args:
        path: the YAML file, or the folder of a run.

    Returns:
        The options by name, sections as dictionaries, in this version's spelling.

    Raises:
        InputError: the file is missing, is no YAML mapping, or spells an option in both the old and the new way.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.yaml"
    check(path.is_file(), "config", path, "an existing YAML file of options")
    options = read_yaml(path)
    check(isinstance(options, dict), "config", f"{path}, which holds none", "a YAML mapping of options")
    return migrated(options, path)


def data_of_run(folder: str | Path) -> DataConfig:
    """Read which images and annotations a run was trained with; drawn people are those in its folder.

    Raises:
        InputError: there is no configuration, or it has no such options.
    """
    folder = Path(folder)
    options = read_config(folder).get("data") or {}
    sections = {"augmentation": Augmentation, "photometric": Photometric, "detection": DetectionOptions}
    try:
        options |= {name: kind(**options[name]) for name, kind in sections.items() if name in options}
        config = DataConfig(**options)
    except TypeError as error:
        fail(f"{folder / 'config.yaml'}: data", error, "the options of a run's data")
    if config.root is None and not config.images:
        config = replace(config, root=str(folder / "synthetic"))
    return config


def moved_data(data: DataConfig, folder: str | Path) -> DataConfig:
    """The given data; where they are no more than a root, the run's whose people have moved there."""
    if data.root is None or data != DataConfig(root=data.root):
        return data
    own = data_of_run(folder)
    return data if own.root is None else replace(own, root=data.root)


def _plain(value: Any) -> Any:
    """Tuples become lists, which YAML can read back safely."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
