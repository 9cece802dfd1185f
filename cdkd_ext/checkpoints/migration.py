"""What version 0.1.0 wrote, in today's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# a run's configuration as YAML's block style lays it out, which makes a YAML reader unnecessary
_PADDING = re.compile(r"^data:\n(?:  .*\n)*?  padding: ([0-9.e+-]+)$", re.M)


def migrate(metadata: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint in today's form.

    Version 0.1.0 kept the joints beside the network and no padding of the crops: that one is read from the run's
    config.yaml where it lies beside the checkpoint, and is else left to its default.

    Args:
        metadata: ``model`` and, in version 0.1.0, ``joints``.
        checkpoint: the file that it comes from.

    Raises:
        KeyError: neither form has what is there.
    """
    model = dict(metadata["model"])
    if "joints" in model:
        return dict(metadata)
    model |= {"name": current_model_name(model["name"]), "joints": metadata["joints"]}
    config = checkpoint.with_name("config.yaml")
    found = _PADDING.search(config.read_text(encoding="utf-8")) if config.is_file() else None
    if found:
        model["padding"] = float(found[1])
    return {"model": model}


def current_model_name(name: str) -> str:
    """Today's name of a network: version 0.1.0 wrote ``resnet_50``."""
    return re.sub(r"^resnet_(?=\d)", "resnet", name)
