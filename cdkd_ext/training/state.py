"""The state that lets an interrupted run go on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cdkd_ext.checkpoints.native import read_spec
from cdkd_ext.checkpoints.run_files import RUN_FILES, STATE
from cdkd_ext.checkpoints.writing import write_torch
from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.files import replacing
from cdkd_ext.models import ModelSpec

_FIELDS = ("epoch", "step", "task", "optimizer", "history", "best")


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write the state of a run: tensors, numbers, strings, lists and dictionaries only.

    Raises:
        InputError: the folder cannot be written or is full.
    """
    write_torch(state, path)


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


def read_run(folder: Path, epochs: int) -> dict[str, Any]:
    """Read the state of a run that is to go on up to a number of epochs.

    Args:
        folder: of the run.
        epochs: how many it is to have in the end.

    Raises:
        InputError: there is no state, it is damaged, or it has more epochs than that.
    """
    path = folder / STATE
    expected = "the folder of a run that has a checkpoint"
    check(path.is_file(), "resume", f"{folder}, without {STATE}", expected)
    state = load_state(path)
    missing = [name for name in _FIELDS if name not in state]
    check(not missing, "resume", f"{path} without {', '.join(missing)}", "the state.pt of a run")
    kinds = {"epoch": int, "step": int, "task": dict, "optimizer": dict, "history": list}
    damaged = [name for name, kind in kinds.items() if name in state and not isinstance(state[name], kind)]
    check(not damaged, "resume", f"{path} with damaged {', '.join(damaged)}", "the state.pt of a run")
    done = state["epoch"]
    check(done >= 0, "resume", f"{path} of epoch {done}", "the state.pt of a run")
    check(done <= epochs, "epochs", epochs, f"at least the {done} that {folder} has already")
    return state


def begins_again(folder: Path) -> bool:
    """Whether a folder is that of a run which was stopped before its first checkpoint."""
    # the metrics are written after the state, so a state was lost where they are
    kept = any((folder / name).exists() for name in (STATE, "metrics.json"))
    return (folder / "config.yaml").is_file() and not kept


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what an optimiser has gathered, such as moments; options such as weight decay stay the optimiser's own."""
    # the learning rate is the schedule's, which sets it in every step
    kept = ("params", "lr")
    options = [
        {name: value for name, value in group.items() if name not in kept} for group in optimizer.param_groups
    ]
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for index, held in state.get("state", {}).items():
        for name, value in held.items():
            # a fused optimiser reads as many numbers as the parameter has
            if isinstance(value, torch.Tensor) and value.dim() > 0:
                wanted = tuple(parameters[index].shape) if index < len(parameters) else None
                got = tuple(value.shape)
                check(
                    got == wanted,
                    f"resume: the optimizer's {name}, parameter {index}",
                    got,
                    f"shape {wanted}",
                )
    try:
        optimizer.load_state_dict(state)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"resume: the optimizer's state is not that of this network ({error})") from error
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)


def check_fits(
    state: Mapping[str, Any], folder: Path, spec: ModelSpec, task: Mapping[str, torch.Tensor]
) -> None:
    """Check that a run's state is one of the network and the losses that are to go on.

    Args:
        state: of `read_run`.
        folder: of the run.
        spec: the student that is to go on.
        task: the parameters and buffers that are to take the state.

    Raises:
        InputError: names the option of the network, the joints, or the first tensor that differs.
    """
    last = folder / "last.safetensors"
    if last.is_file():
        # not every option shows in the shape of a tensor
        saved = read_spec(last, "resume")
        option = spec.misfit(saved)
        if option is not None:
            fail(f"model.{option}", getattr(spec, option), f"{getattr(saved, option)} as in {folder}")
        _check_joints(spec, saved, folder)
    saved_task = state["task"]
    for name in sorted({*task, *saved_task}):
        got, wanted = (_shape(tensors.get(name)) for tensors in (task, saved_task))
        check(got == wanted, f"resume: {name}", got, f"{wanted} as in {folder / STATE}")


def copy_run(source: Path, folder: Path) -> None:
    """Copy a run's checkpoints and state into a folder that goes on with it; the state comes last."""
    for name in RUN_FILES[1:]:
        if (source / name).is_file():
            with replacing(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)


def _check_joints(spec: ModelSpec, saved: ModelSpec, folder: Path) -> None:
    got, wanted = (None if one.joints is None else one.joints.names for one in (spec, saved))
    if None not in (got, wanted) and got != wanted:
        fail("resume: joints of the data", ", ".join(got or ()), f"{', '.join(wanted or ())} as in {folder}")


def _shape(tensor: torch.Tensor | None) -> str:
    return "no such tensor" if tensor is None else f"shape {tuple(tensor.shape)}"
