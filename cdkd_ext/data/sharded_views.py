"""Fixed views in shards: resumable, checksummed, and computed by several processes at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdkd_ext.data.batches import Key, lost_workers_named
from cdkd_ext.data.cached_views import STUDENT_FIELDS, _chunks, _people, later_options, student_identity
from cdkd_ext.data.dataset import PoseDataset
from cdkd_ext.data.shard_writing import Chunk, row_bytes, write_shards
from cdkd_ext.data.shards import Manifest, Shards
from cdkd_ext.errors import check_option
from cdkd_ext.images import decode_image, encode_image

IMAGE_FORMATS = ("raw", "jpeg")
Columns = Mapping[str, Tensor | Sequence[bytes]]


class ShardedViews:
    """Reads what `store_sharded_views` wrote.

    Args:
        folder: where it wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._shards = Shards(folder)
        self._views = int(self._shards.manifest.identity["views"])

    def __len__(self) -> int:
        """Number of people."""
        return len(self._shards) // self._views

    def read(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Return the columns of the (index, view) keys, stacked; images that were stored as JPEG are decoded.

        Raises:
            InputError: a view is not what was written; names the file.
        """
        index, view = np.asarray(keys, dtype=np.int64).reshape(-1, 2).T
        columns = self._shards.read(index * self._views + view)
        return {name: _tensor(column) for name, column in columns.items()}


def build_sharded_views(
    dataset: PoseDataset, views: int, folder: Path, *, images: str = "raw", workers: int = 0
) -> Path:
    """Store `views` crops of every person with their labels in shards; return the folder.

    Args:
        dataset: the training people; its teacher crops, if any, are not stored.
        views: number of views per person.
        folder: parent of the stored folder, whose name is a fingerprint of everything that goes in.
        images: "raw", or "jpeg" of quality 95, which takes about half the room and loses a little.
        workers: processes that load images.

    Raises:
        InputError: as `store_sharded_views` does, and for an unknown format.
    """
    check_option("images", images, IMAGE_FORMATS)

    def compute(samples: dict[str, Tensor]) -> Columns:
        return student_columns(samples, images)

    identity = {"size": dataset.size, "labelled": dataset.labelled_fraction, "images": images}
    identity |= student_identity(dataset)
    return store_sharded_views(dataset, views, folder, "views", compute, identity, workers=workers)


def store_sharded_views(
    dataset: PoseDataset,
    views: int,
    folder: Path,
    kind: str,
    compute: Callable[[dict[str, Tensor]], Columns],
    identity: Mapping[str, object],
    *,
    workers: int = 0,
) -> Path:
    """Store what a function computes from `views` views of every person, where it is not stored yet; return the folder.

    Several processes may do so at a time; see `write_shards`.

    Args:
        dataset: the training people.
        views: number of views per person.
        folder: parent of the stored folder.
        kind: start of the stored folder's name; a fingerprint of everything that goes in follows.
        compute: takes the stacked fields of some samples and returns the columns to store, one row per sample.
        identity: what they depend on beside the people and how their views are drawn.
        workers: processes that load images.

    Raises:
        InputError: an image cannot be read, a shard is not whole, or nothing can be written.
    """
    manifest = views_manifest(dataset, views, identity)

    def produce(start: int, stop: int) -> Iterator[Chunk]:
        keys = [divmod(row, views) for row in range(start, stop)]
        with lost_workers_named():
            for _, samples in _chunks(dataset, keys, workers):
                yield _chunk(compute(samples))

    return write_shards(folder / f"{kind}-{manifest.fingerprint}", manifest, produce)


def views_manifest(dataset: PoseDataset, views: int, identity: Mapping[str, object]) -> Manifest:
    """What a folder of views is to hold: it depends on how views are drawn, of which the student's size is no part.

    Args:
        dataset: the training people.
        views: number of views per person.
        identity: what else the rows depend on.
    """
    augmentation = dataset.augmentation
    height, width = dataset.size
    divisor = math.gcd(height, width)
    drawn: dict[str, Any] = {
        "people": _people(dataset).hexdigest(),
        "views": views,
        "seed": dataset.seed,
        "augmentation": None if augmentation is None else augmentation.identity(),
        "padding": dataset.padding,
        "aspect": [height // divisor, width // divisor],
    }
    if augmentation is not None and augmentation.half_body > 0:
        # half-body crops follow the labels
        drawn["labelled"] = dataset.labelled_fraction
    return Manifest.of({**drawn, **later_options(dataset), **identity}, len(dataset) * views)


def student_columns(samples: Mapping[str, Tensor], images: str) -> Columns:
    """What is stored of a student's samples.

    Args:
        samples: stacked fields of `PoseDataset`'s samples.
        images: "raw" or "jpeg".
    """
    columns: dict[str, Tensor | Sequence[bytes]] = {name: samples[name] for name in STUDENT_FIELDS}
    if images == "jpeg":
        pixels = samples["image"].permute(0, 2, 3, 1).contiguous().numpy()
        columns["image"] = [encode_image(image, ".jpg") for image in pixels]
    return columns


def stored_bytes(columns: Columns) -> float:
    """Bytes that a row of these columns takes in a shard, on average."""
    return row_bytes(_chunk(columns))


def _chunk(columns: Columns) -> Chunk:
    return {n: column.numpy() if isinstance(column, Tensor) else column for n, column in columns.items()}


def _tensor(column: Any) -> Tensor:
    """A column as a tensor; byte strings are images."""
    if isinstance(column, list):
        images = np.stack([decode_image(content) for content in column])
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return torch.from_numpy(np.ascontiguousarray(column))
