"""A teacher's outputs for fixed views in some three kilobytes each, computed once for many students."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cdkd_ext.data.batches import Key
from cdkd_ext.data.dataset import PoseDataset
from cdkd_ext.data.sharded_views import ShardedViews, store_sharded_views
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.errors import check
from cdkd_ext.teachers.coding import CodedDistributions, decode, encode

CODING = 1  # version of what the columns mean
_CODES, _START, _STEP, _BINS = ".codes", ".start", ".step", ".bins"


class CompactOutput(NamedTuple):
    """A `TeacherOutput` as it is stored; it goes to the device so, and is decoded there.

    Attributes:
        fields: those of the output that there are: distributions coded, everything else in half precision.
    """

    fields: dict[str, Tensor | CodedDistributions]

    def to(self, device: torch.device | str) -> CompactOutput:
        """The same on another device."""
        return CompactOutput(
            {name: value.to(device, non_blocking=True) for name, value in self.fields.items()}
        )

    def widened(self) -> TeacherOutput:
        """The output with its logits decoded, in float32."""
        fields: dict[str, Any] = {name: _widened(value) for name, value in self.fields.items()}
        return TeacherOutput(**{"feature": None, **fields})


class CompactOutputs:
    """Reads a teacher's compact outputs for (index, view) keys.

    Args:
        folder: where `build_compact_outputs` wrote.

    Raises:
        InputError: a shard is missing or not whole; says how to make it again.
    """

    def __init__(self, folder: Path) -> None:
        self._views = ShardedViews(folder)

    def __call__(self, keys: Sequence[Key]) -> CompactOutput:
        """Return the output for the keys, one row each; `widened` makes it a `TeacherOutput`."""
        return compact_output(self._views.read(keys))


def compact_output(columns: Mapping[str, Any]) -> CompactOutput:
    """The output that `compact_columns` made columns of."""
    fields: dict[str, Tensor | CodedDistributions] = {}
    for name, value in columns.items():
        field, dot, _ = name.partition(".")
        if not dot:
            fields[name] = value
        elif name == field + _CODES:
            fields[field] = _coded(columns, field)
    return CompactOutput(fields)


def compact_columns(output: TeacherOutput, *, features: bool) -> dict[str, Tensor]:
    """The columns of a teacher's output, on the CPU.

    Args:
        output: of B crops.
        features: keep the feature map too, in half precision.

    Raises:
        InputError: there is nothing to keep, or a distribution is none.
    """
    columns: dict[str, Tensor] = {}
    for name, value in output._asdict().items():
        if value is None or (name == "feature" and not features):
            continue
        if not name.startswith("logits"):
            columns[name] = value.to("cpu", torch.float16)
            continue
        coded = encode(value)
        columns[name + _CODES] = coded.codes.cpu()
        columns[name + _START] = coded.start.to("cpu", torch.uint16)
        columns[name + _STEP] = coded.step.cpu()
        columns[name + _BINS] = torch.full((len(value),), coded.bins, dtype=torch.uint16)
    check(
        columns,
        "data.teacher_cache",
        "compact for a teacher that gives feature maps alone",
        "SAPE, which takes them",
    )
    return columns


def build_compact_outputs(
    dataset: PoseDataset,
    views: int,
    folder: Path,
    teacher: Callable[[Tensor], TeacherOutput],
    identity: str,
    *,
    features: bool = False,
    workers: int = 0,
) -> Path:
    """Store a teacher's compact outputs for `views` views of every person, where they are not stored yet.

    Students of any input size and number of classes share them, as far as they have the same views: the folder's name is
    a fingerprint of everything that goes in. Several processes may do so at a time; see `write_shards`.

    Args:
        dataset: the training people, with `teacher_size`.
        views: number of views per person.
        folder: parent of the stored folder.
        teacher: returns its output for uint8 images (B, 3, H, W).
        identity: what tells this teacher from another, such as a hash of its file with its precision.
        features: store the feature maps too, in half precision: 139 KB for 17 maps of 64×64 cells.
        workers: processes that load images.

    Returns:
        The stored folder.

    Raises:
        InputError: an image cannot be read, an output holds NaN, a shard is not whole, or nothing can be written.

    Example:
        ```python
        folder = build_compact_outputs(dataset, 4, Path("cache"), FrozenTeacher(network), "w32, 2024-03")
        output = CompactOutputs(folder)([(0, 0), (7, 3)]).widened()
        ```
    """
    described = {
        "teacher": identity,
        "teacher_size": dataset.teacher_size,
        "teacher_resample": dataset.teacher_resample,
        "features": features,
        "coding": CODING,
    }

    def compute(samples: dict[str, Tensor]) -> dict[str, Tensor]:
        return compact_columns(teacher(samples["teacher_image"]), features=features)

    return store_sharded_views(dataset, views, folder, "compact", compute, described, workers=workers)


def _coded(columns: Mapping[str, Any], field: str) -> CodedDistributions:
    start = columns[field + _START].int()
    # all rows of a teacher have as many
    bins = int(columns[field + _BINS][0]) if len(start) else 1
    return CodedDistributions(columns[field + _CODES], start, columns[field + _STEP], bins)


def _widened(value: Tensor | CodedDistributions) -> Tensor:
    return decode(value) if isinstance(value, CodedDistributions) else value.float()
