"""The state that lets an interrupted run go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cdkd_ext.errors import InputError, check
from cdkd_ext.files import replacing


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write the state of a run: tensors, numbers, strings, lists and dictionaries only."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a run without executing anything in the file.

    Raises:
        InputError: the file is truncated or holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # a damaged file can raise almost anything from inside the unpickler
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"resume: {path} cannot be read as the state of a run ({reason})") from error
    check(isinstance(state, dict) and "epoch" in state, "resume", path, "the state.pt of a run")
    return state
