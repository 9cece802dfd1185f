"""Checkpoints: weights that describe their own network, and the state that lets a run go on."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

from cdkd_ext._checks import InputError, check, fail
from cdkd_ext._files import replacing
from cdkd_ext.data import JointSet
from cdkd_ext.models import PoseNetwork, create_model, load_checkpoint

_KEY = "cdkd_ext"
_DESCRIPTION = (
    "name",
    "input_size",
    "num_joints",
    "head",
    "split_ratio",
    "channels_per_joint",
    "decoding",
    "color_order",
)


def save_model(model: PoseNetwork, joints: JointSet, path: Path) -> None:
    """Write a model as safetensors whose metadata tells its joints and what `create_model` needs."""
    description = {name: getattr(model, name) for name in _DESCRIPTION}
    metadata = {_KEY: json.dumps({"model": description, "joints": joints.to_category()})}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def describes_itself(path: str | Path) -> bool:
    """Whether a file, or the best checkpoint of a run's folder, is one that `save_model` wrote."""
    path = Path(path)
    if path.is_dir():
        return True
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return False


def load_model(path: str | Path, argument: str = "weights") -> tuple[PoseNetwork, JointSet]:
    """Rebuild a model from a file that `save_model` wrote, or from a run's folder (its best checkpoint).

    Args:
        path: the .safetensors file, or the folder that holds best.safetensors.
        argument: what error messages call the path.

    Raises:
        InputError: the file is missing, truncated, or was not written by `save_model`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "best.safetensors"
    check(path.is_file(), argument, path, "an existing checkpoint")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        hint = "" if path.suffix == ".safetensors" else "; `cdkd convert` makes one of other weights"
        raise InputError(f"{argument}: {path} is no complete safetensors file ({error}){hint}") from error
    if _KEY not in metadata:
        fail(
            argument,
            f"{path}, which does not say what network it is",
            "a checkpoint written by `cdkd train` or `cdkd convert`",
        )
    try:
        description = json.loads(metadata[_KEY])
        model = create_model(
            **{**description["model"], "input_size": tuple(description["model"]["input_size"])}
        )
        joints = JointSet.from_category(description["joints"], f"{path}: joints")
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{argument}: {path} has damaged metadata ({error})") from error
    load_checkpoint(model, path)
    return model, joints


def file_hash(path: str | Path) -> str:
    """SHA-256 of a checkpoint, or of a run folder's best checkpoint."""
    path = Path(path)
    if path.is_dir():
        path = path / "best.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"resume: {path} cannot be read as the state of a run ({reason})") from error
    check(isinstance(state, dict) and "epoch" in state, "resume", path, "the state.pt of a run")
    return state
