"""Weights from and to files of this package and of others, all or nothing, without running code in them."""

from __future__ import annotations

import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.checkpoints.wrappers import find_weights, unwrap_names
from cdkd_ext.checkpoints.writing import write_safetensors, write_torch
from cdkd_ext.errors import InputError, check, check_option, check_type, fail
from cdkd_ext.models.pose_network import PoseNetwork

LAYOUTS = ("official", "mmpose")
# at least under other names
_NOT_IN_MMPOSE = ("lowres_", "hourglass_", "okdhp_", "swin_")
# the longest first; mmpose before 1.0 said keypoint_head
_MMPOSE_PREFIXES = ("backbone.", "head.deconv_head.", "keypoint_head.", "head.")
_NOT_WEIGHTS = re.compile(r"^data_preprocessor\.|(^|\.)(total_ops|total_params)$")
# classification needs every resolution of HRNet's last module, poses need the highest alone
_LOWER_RESOLUTIONS = re.compile(r"^stage4\.\d+\.fuse_layers\.[1-9]\d*\.")
_RTMPOSE = re.compile(r"^(mlp\.0\.g|gau\.|cls_[xy]\.)")
_SHOWN = 3

# what training checkpoints hold beside weights: numbers, options, paths, mmengine's log. It is read as nothing at all.
_INERT = (
    "argparse.Namespace",
    "builtins.getattr",
    "builtins.list",
    "datetime.datetime",
    "datetime.timedelta",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "types.SimpleNamespace",
    "typing.Any",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Bool", "Float32", "Float64", "Int32", "Int64", "UInt8")),
)
# classes derived from dict, which options often are
_DICTIONARIES = (
    "addict.addict.Dict",
    "collections.defaultdict",
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
)


@dataclass(frozen=True)
class CheckpointReport:
    """What became of the tensors of a checkpoint.

    Attributes:
        path: the file.
        layout: whose names it had, "official", "mmpose" or those of a method's own code, by the method's name.
        matched: names of the model's tensors that were read.
        missing: names of the model's tensors that the file does not have; they kept their values.
        dropped: names in the file that the model has no use for, and other sets of weights beside those read.
    """

    path: str
    layout: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.path}: {len(self.matched)} tensors read ({self.layout} names)"]
        for kind in ("missing", "dropped"):
            names = getattr(self, kind)
            if names:
                parts.append(f"{len(names)} {kind} ({_first(names)})")
        return ", ".join(parts)


def load_checkpoint(
    model: PoseNetwork, path: str | os.PathLike[str], *, backbone_only: bool = False
) -> CheckpointReport:
    """Copy the weights in a file into `model`; either every tensor fits or nothing changes.

    It reads the files of HRNet, SimpleBaselines, DARK, SimCC, CDKD, mmpose and of the methods' own code for the networks
    that this package has, their training checkpoints too, and ImageNet's backbones of HRNet, torchvision and mmpretrain.

    Args:
        model: the network to fill.
        path: a safetensors file, or a file written by `torch.save` (read with `weights_only`: it cannot run
            code) holding the tensors by name, possibly under a key such as `state_dict`, `best_state_dict`, `model` or
            `net`, behind any wrappers' `module.`, `_orig_mod.` or `model.`, or with mmpose's `backbone.` and
            `head.`. Of a student and its teacher the student is read, of weights and their average the weights.
        backbone_only: read the backbone alone, all of it, and leave the head (the layers of the network's method, and
            `deconv_layers`) as it is.

    Returns:
        What was read, what is missing (with `backbone_only` the head, else at most counters of old
        files) and what was dropped.

    Raises:
        InputError: the file is missing, truncated or foreign, or its names or shapes are not the model's.
    """
    check_type("model", model, PoseNetwork, "a PoseNetwork")
    content, passed_over = _read(Path(path))
    head = _head(model)
    expected = model.state_dict()
    weights, layout = _known_names(content, model, path)
    wanted = {name: value for name, value in expected.items() if not (backbone_only and _part(name) in head)}
    # torch before 0.4.1 did not store this counter, and nothing here uses it
    absent = [name for name in wanted if name not in weights]
    missing = [name for name in absent if not name.endswith("num_batches_tracked")]
    extra = [name for name in weights if name not in wanted]
    parts = {_part(name) for name in wanted}
    unused = model.spec.method.unused_parts
    unexpected = [
        name
        for name in extra
        if not (name.startswith(unused) or (backbone_only and _is_other_head(name, parts)))
    ]
    misfits = [
        f"{name} {_describe(weights[name])} instead of {_describe(value)}"
        for name, value in wanted.items()
        if name in weights and _describe(weights[name]) != _describe(value)
    ]
    problems = [
        f"{len(entries)} {kind} ({_first(entries)})"
        for kind, entries in (("missing", missing), ("unexpected", unexpected), ("that do not fit", misfits))
        if entries
    ]
    if problems:
        got = f"tensors {', '.join(problems)}"
        if any(_RTMPOSE.match(name) for name in weights):
            got += "; this is RTMPose's head, which no network of this package has"
        elif not backbone_only and _backbone_fits(weights, expected, head):
            got += "; the backbone fits, and backbone_only takes it alone"
        part = "backbone tensors" if backbone_only else "tensors"
        fail(str(path), got, f"the {len(wanted)} {part} of this {model.name}")
    matched = {name: weights[name] for name in wanted if name in weights}
    model.load_state_dict(matched, strict=False)
    left = tuple(name for name in expected if name not in matched)
    dropped = (*extra, *filter(_NOT_WEIGHTS.search, content), *passed_over)
    return CheckpointReport(str(path), layout, tuple(matched), left, dropped)


def export_checkpoint(model: PoseNetwork, path: str | os.PathLike[str], *, layout: str = "official") -> None:
    """Write the weights under the names that other code bases read.

    Args:
        model: the network.
        path: with the suffix .safetensors, else a file for `torch.load`.
        layout: "official" names are those of the method's own code (HRNet, SimpleBaselines, SimCC and CDKD for heatmaps
            and SimCC); "mmpose", for those two, puts them under `backbone.` and `head.`, and those in a `state_dict`.

    Raises:
        InputError: an unknown layout, a network that mmpose does not have, or a folder that cannot be written.
    """
    check_option("layout", layout, LAYOUTS)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if layout == "official":
        tensors = {_published_name(model, name): value for name, value in tensors.items()}
    content: dict[str, Any] = tensors
    if layout == "mmpose":
        known = not model.name.startswith(_NOT_IN_MMPOSE)
        check(known, "layout", "'mmpose'", f"'official' for {model.name}, which mmpose does not have")
        check_option("head", model.head, ("simcc", "heatmap"))
        check(
            model.channels_per_joint == 1, "layout", "'mmpose'", "'official' for several channels per joint"
        )
        # a SimCC head with transposed convolutions holds a whole heatmap head in front of its linear layers
        nested = model.head == "simcc" and any(name.startswith("deconv_layers.") for name in tensors)
        head = _head(model)
        tensors = {_mmpose_name(name, head, nested): value for name, value in tensors.items()}
        content = {"meta": {}, "state_dict": tensors}
    if Path(path).suffix == ".safetensors":
        write_safetensors(tensors, path)
    else:
        write_torch(content, path)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, without nesting and wrappers' prefixes.

    Raises:
        InputError: the file is missing, truncated, or holds anything but tensors by name.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of `read_weights`, and the names of what else the file holds."""
    if not path.is_file():
        fail(str(path), "a folder" if path.is_dir() else "no such file", "a weights file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    content, beside = find_weights(content)
    if not isinstance(content, Mapping) or not content:
        fail(str(path), f"{type(content).__name__} without tensors", "tensors by name")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        fail(str(path), f"{len(others)} entries that are no tensors ({_first(others)})", "tensors by name")
    weights, other_networks = unwrap_names({str(name): value for name, value in content.items()})
    return weights, (*other_networks, *beside)


def _official_names(
    weights: dict[str, Tensor], path: str | os.PathLike[str]
) -> tuple[dict[str, Tensor], str]:
    """The weights under the official names, and the layout that they had."""
    weights = {name: value for name, value in weights.items() if not _NOT_WEIGHTS.search(name)}
    if not any(name.startswith("backbone.") for name in weights):
        return weights, "official"
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        prefix = next((prefix for prefix in _MMPOSE_PREFIXES if name.startswith(prefix)), "")
        plain = name.removeprefix(prefix)
        check(plain not in renamed, str(path), f"two tensors for {plain}", "one tensor per name")
        renamed[plain] = value
    return renamed, "mmpose"


def _mmpose_name(name: str, head: Container[str], nested: bool) -> str:
    if _part(name) not in head:
        return f"backbone.{name}"
    inner = nested and _part(name) in ("deconv_layers", "final_layer")
    return f"head.deconv_head.{name}" if inner else f"head.{name}"


def _head(model: PoseNetwork) -> tuple[str, ...]:
    """The parts that a published backbone lacks."""
    return ("deconv_layers", *model.head_parts)


def _published_name(model: PoseNetwork, name: str) -> str:
    """A tensor's name in the published files of the network's method."""
    method = model.spec.method
    return (method.head_prefix if _part(name) in model.head_parts else method.backbone_prefix) + name


def _known_names(
    weights: dict[str, Tensor], model: PoseNetwork, path: str | os.PathLike[str]
) -> tuple[dict[str, Tensor], str]:
    """The weights under the names that the network has, and the layout of the file."""
    method = model.spec.method
    own = {_published_name(model, name): name for name in model.state_dict()}
    changed = {published for published, name in own.items() if published != name}
    prefix = method.backbone_prefix
    # a backbone alone, of another origin, has neither
    if changed.isdisjoint(weights):
        return _official_names(weights, path)
    renamed = {own.get(name, name.removeprefix(prefix)): value for name, value in weights.items()}
    check(len(renamed) == len(weights), str(path), "two tensors of one name", "one tensor per name")
    return {name: value for name, value in renamed.items() if not _NOT_WEIGHTS.search(name)}, method.name


def _part(name: str) -> str:
    return name.split(".")[0]


def _is_other_head(name: str, parts: Container[str]) -> bool:
    """Whether a name that the backbone of these parts lacks is no part of a larger backbone."""
    return _part(name) not in parts or _LOWER_RESOLUTIONS.match(name) is not None


def _backbone_fits(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], head: Container[str]
) -> bool:
    backbone = {name: value for name, value in expected.items() if _part(name) not in head}
    needed = [name for name in backbone if not name.endswith("num_batches_tracked")]
    parts = {_part(name) for name in backbone}
    return all(
        name in weights and _describe(weights[name]) == _describe(backbone[name]) for name in needed
    ) and all(name in backbone or _is_other_head(name, parts) for name in weights)


def _describe(tensor: Tensor) -> str:
    """Shape, whether the numbers are real ones, and whether all are there."""
    kind = "" if tensor.is_floating_point() else " of integers"
    kind += " without numbers" if tensor.is_meta else "" if tensor.layout == torch.strided else ", sparse"
    return f"{tuple(tensor.shape)}{kind}"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"{path}: reading safetensors files needs `pip install safetensors`") from error
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(f"{path}: expected a safetensors file, got a truncated or foreign one") from error


class _Nothing:
    """Stands for an object beside the weights: whatever it is given, it does nothing and keeps nothing."""

    def __new__(cls, *values: object) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Dictionary:
    """Stands for a class derived from dict: makes a plain one, which the unpickler then fills."""

    def __new__(cls, *values: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def _read_torch(path: Path) -> Any:
    inert: list[Any] = [(_Nothing, name) for name in _INERT]
    inert += [(_Dictionary, name) for name in _DICTIONARIES]
    try:
        _check_size(path)
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True)
    # a damaged file can raise almost anything from inside the unpickler
    except Exception as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)|unrecognized function", str(error))
        got = "a truncated or foreign one"
        if forbidden:
            got = f"one with Python objects ({forbidden[1] or 'calls of functions'})"
        raise InputError(f"{path}: expected a torch file that holds only tensors, got {got}") from error


def _check_size(path: Path) -> None:
    """Refuse a file whose parts are larger than the file: torch compresses nothing, but unpacks what is compressed."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        check(
            size <= path.stat().st_size,
            str(path),
            f"{size} bytes after unpacking",
            "an uncompressed torch file",
        )


def _first(entries: Iterable[str]) -> str:
    entries = list(entries)
    return "; ".join(entries[:_SHOWN]) + ("; ..." if len(entries) > _SHOWN else "")
