"""Checkpoints of this package: weights that describe their own network."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import safetensors
import torch

from cdkd_ext.checkpoints.foreign import load_checkpoint
from cdkd_ext.checkpoints.migration import migrate
from cdkd_ext.checkpoints.writing import write_safetensors
from cdkd_ext.errors import InputError, check, fail, shortened
from cdkd_ext.files import read_yaml
from cdkd_ext.models import ModelSpec, PoseNetwork, create_model

_KEY = "cdkd_ext"
_ADAPTED = ("adapted.onnx", "adapted.pth")  # what `cdkd_ext.adaptation` calls networks of others
_STUDENTS = "students.yaml"


def save_model(model: PoseNetwork, path: str | os.PathLike[str]) -> None:
    """Write a model as safetensors whose metadata is its description (`ModelSpec`), the names of its joints included.

    Raises:
        InputError: the joints are not known, or the folder cannot be written or is full.
    """
    check(model.spec.joints is not None, "model.spec.joints", None, "the names of the joints")
    metadata = {_KEY: json.dumps({"model": model.spec.to_dict()})}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_safetensors(tensors, path, metadata)


def describes_itself(path: str | os.PathLike[str]) -> bool:
    """Whether a file, or the best checkpoint of a run's folder, is one that `save_model` wrote.

    A damaged .safetensors file counts as one: `read_spec` says what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        return True
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except OSError:
        return False
    except safetensors.SafetensorError:
        return path.suffix == ".safetensors"


def load_model(path: str | os.PathLike[str], argument: str = "weights") -> PoseNetwork:
    """Rebuild a model from a file that `save_model` wrote, or from a run's folder (its best checkpoint).

    Args:
        path: the .safetensors file, or the folder that holds best.safetensors.
        argument: what error messages call the path.

    Returns:
        The network in training mode; `network.spec` tells its joints and the padding of its crops.

    Raises:
        InputError: the file is missing, truncated, or was not written by `save_model`.
    """
    path = checkpoint_file(path, argument)
    model = create_model(read_spec(path, argument))
    load_checkpoint(model, path)
    return model


def checkpoint_file(path: str | os.PathLike[str], argument: str = "weights") -> Path:
    """Return the file that a path stands for: itself, or in a run's folder the best checkpoint.

    Raises:
        InputError: the folder has none, since it is that of an adaptation or of several students; names what it has.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    best = path / "best.safetensors"
    if not best.exists():
        for adapted in (path / name for name in _ADAPTED):
            got = f"{path}, the folder of an adaptation: the network itself is {adapted}"
            check(not adapted.is_file(), argument, got, "an existing checkpoint")
        if (path / _STUDENTS).is_file():
            got = f"{path}, the folder of several students: {', '.join(_students(path))}"
            fail(argument, got, "an existing checkpoint")
    return best


def _students(folder: Path) -> list[str]:
    """The runs that are trained together in a folder, as far as its file names them."""
    content = read_yaml(folder / _STUDENTS)
    named = content.get("students") if isinstance(content, dict) else None
    return [str(folder / str(name)) for name in named] if isinstance(named, list) else []


def read_spec(path: str | os.PathLike[str], argument: str = "weights") -> ModelSpec:
    """Read what network a file that `save_model` wrote is of, without its weights; see `load_model`."""
    path = Path(path)
    check(path.is_file(), argument, path, "an existing checkpoint")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        hint = "" if path.suffix == ".safetensors" else "; `cdkd convert` makes one of other weights"
        if path.suffix in (".onnx", ".pt2"):
            hint = "; a file that was exported is none"
        raise InputError(f"{argument}: {path} is no complete safetensors file ({error}){hint}") from error
    if _KEY not in metadata:
        fail(
            argument,
            f"{path}, which does not say what network it is",
            "a checkpoint written by `cdkd train` or `cdkd convert`",
        )
    try:
        described = migrate(json.loads(metadata[_KEY]), path)
        spec = ModelSpec.from_dict(described["model"], f"{path}: model")
        _check_numbers(spec, path, argument)
    except (AttributeError, KeyError, RecursionError, RuntimeError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{argument}: {path} has damaged metadata ({shortened(str(error))})") from error
    return spec


def _check_numbers(spec: ModelSpec, path: Path, argument: str) -> None:
    """Check that a file can hold the described network's numbers, before there is memory for them."""
    with torch.device("meta"):
        numbers = sum(tensor.numel() for tensor in create_model(spec).state_dict().values())
    size = path.stat().st_size
    if numbers > size:
        fail(
            argument,
            f"{path} of {size} bytes, which describes {numbers}",
            "a checkpoint with its network's numbers",
        )


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a checkpoint, or of a run folder's best checkpoint."""
    return hashlib.sha256(checkpoint_file(path).read_bytes()).hexdigest()
