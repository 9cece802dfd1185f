"""Reading weights from files, all or nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cdkd_ext._checks import InputError, fail

_NESTED = ("best_state_dict", "state_dict")
_SHOWN = 3


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy the weights in a file into `model`; either every tensor fits or nothing changes.

    Args:
        model: the network to fill.
        path: a safetensors file, or a file written by `torch.save` (read with `weights_only`: it cannot run
            code) holding the tensors by name, possibly under `state_dict` or `best_state_dict` and with
            `module.` before each name.

    Raises:
        InputError: the file is missing, truncated or foreign, or its names or shapes are not the model's.
    """
    weights = read_weights(path)
    expected = model.state_dict()
    # torch before 0.4.1 did not store this counter, and nothing here uses it
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in weights.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    problems = [
        f"{len(entries)} {kind} ({_first(entries)})"
        for kind, entries in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if entries
    ]
    if problems:
        described = getattr(model, "name", type(model).__name__)
        fail(str(path), "tensors " + ", ".join(problems), f"the {len(expected)} tensors of this {described}")
    model.load_state_dict(weights, strict=False)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, without nesting and `module.` prefixes.

    Raises:
        InputError: the file is missing, truncated, or holds anything but tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        fail(str(path), "a folder" if path.is_dir() else "no such file", "a weights file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        fail(str(path), f"{type(content).__name__} without tensors", "tensors by name")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        fail(str(path), f"{len(others)} entries that are no tensors ({_first(others)})", "tensors by name")
    weights = {str(name): value for name, value in content.items()}
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"{path}: reading safetensors files needs `pip install safetensors`") from error
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(f"{path}: expected a safetensors file, got a truncated or foreign one") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # a damaged file can raise almost anything from inside the unpickler
    except Exception as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        came = f"one with Python objects ({forbidden[1]})" if forbidden else "a truncated or foreign one"
        raise InputError(f"{path}: expected a torch file that holds only tensors, got {came}") from error


def _first(entries: Iterable[str]) -> str:
    entries = list(entries)
    return "; ".join(entries[:_SHOWN]) + ("; ..." if len(entries) > _SHOWN else "")
