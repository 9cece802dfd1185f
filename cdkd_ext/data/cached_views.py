"""Fixed views: each person's crops drawn once, and the teacher's outputs for them computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cdkd_ext.data import PoseDataset
from cdkd_ext.data.batches import Batch, Key
from cdkd_ext.errors import InputError
from cdkd_ext.files import new_folder

STUDENT_FIELDS = ("image", "keypoints", "annotated", "labelled", "to_image")
CHUNK = 64
_Chunk = tuple[list[Key], dict[str, Tensor]]


class FixedViews(Dataset[Batch]):
    """Batches of stored samples, read from memory-mapped arrays of shape (people, views, …).

    Args:
        folders: where `build_student_views` and `build_teacher_outputs` wrote.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.arrays = {
            path.stem: np.load(path, mmap_mode="r")
            for folder in folders
            for path in sorted(folder.glob("*.npy"))
        }

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples of the (index, view) keys, stacked; stored half floats come back as float32."""
        index, view = np.asarray(keys).T
        samples = {name: torch.from_numpy(array[index, view]) for name, array in self.arrays.items()}
        samples = {
            name: value.float() if value.dtype == torch.float16 else value for name, value in samples.items()
        }
        return {**samples, "index": torch.from_numpy(index)}

    def __getitem__(self, keys: list[Key]) -> Batch:
        return self.batch(keys)


def _fingerprint(dataset: PoseDataset, views: int, **more: object) -> str:
    digest = hashlib.sha256()
    for person in dataset.persons:
        digest.update(str(person.image_path).encode())
        for values in (person.box, person.keypoints, person.annotated):
            digest.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
    settings = {
        "size": dataset.size,
        "augmentation": asdict(dataset.augmentation) if dataset.augmentation else None,
        "seed": dataset.seed,
        "labelled_fraction": dataset.labelled_fraction,
        "padding": dataset.padding,
        "views": views,
        **more,
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def _build(target: Path, write: Callable[[Path], None]) -> Path:
    """Fill a new folder, unless it is there; another run may finish the same one first."""
    if not target.is_dir():
        try:
            with new_folder(target) as temporary:
                write(temporary)
        except InputError:
            if not target.is_dir():
                raise
    return target


def _chunks(dataset: PoseDataset, views: int, workers: int) -> DataLoader[_Chunk]:
    keys = [(index, view) for index in range(len(dataset)) for view in range(views)]
    chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]
    return DataLoader(_Keyed(dataset), batch_size=None, sampler=chunks, num_workers=workers)


class _Keyed(Dataset[_Chunk]):
    def __init__(self, dataset: PoseDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, keys: list[Key]) -> _Chunk:
        samples = [self.dataset[key] for key in keys]
        return keys, {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def _write_arrays(
    folder: Path,
    dataset: PoseDataset,
    views: int,
    workers: int,
    compute: Callable[[dict[str, Tensor]], dict[str, np.ndarray]],
) -> None:
    arrays: dict[str, np.memmap] = {}
    for keys, samples in _chunks(dataset, views, workers):
        index, view = np.asarray(keys).T
        for name, values in compute(samples).items():
            if name not in arrays:
                shape = (len(dataset), views, *values.shape[1:])
                arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", values.dtype, shape)
            arrays[name][index, view] = values
    for array in arrays.values():
        array.flush()


def build_student_views(dataset: PoseDataset, views: int, folder: Path, *, workers: int = 0) -> Path:
    """Store `views` crops of every person with their labels; return the folder, reused where it exists.

    Args:
        dataset: the training people; its teacher crops, if any, are not stored.
        views: number of views per person.
        folder: parent of the stored folder, whose name is a fingerprint of everything that goes in.
        workers: processes that load pictures.
    """

    def compute(samples: dict[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: samples[name].numpy() for name in STUDENT_FIELDS}

    target = folder / f"views-{_fingerprint(dataset, views)}"
    return _build(target, lambda path: _write_arrays(path, dataset, views, workers, compute))


def build_teacher_outputs(
    dataset: PoseDataset,
    views: int,
    folder: Path,
    teacher: Callable[[Tensor], Any],
    identity: str,
    device: torch.device,
    *,
    workers: int = 0,
) -> Path:
    """Store the teacher's feature and, of SimCC, its logits for the same views; return the folder, reused where it exists.

    They are stored in half precision, which a trained teacher's outputs fit; a fresh network's may be too small.

    Args:
        dataset: the training people, with `teacher_size`.
        views: number of views per person.
        folder: parent of the stored folder, whose name is a fingerprint of everything that goes in.
        teacher: the frozen teacher.
        identity: what tells this teacher from another, such as a hash of its checkpoint.
        device: where the teacher runs.
        workers: processes that load pictures.
    """

    def compute(samples: dict[str, Tensor]) -> dict[str, np.ndarray]:
        output = teacher(samples["teacher_image"].to(device))
        return {
            f"teacher_{name}": values.to("cpu", torch.float16).numpy()
            for name, values in output._asdict().items()
        }

    fingerprint = _fingerprint(
        dataset,
        views,
        teacher=identity,
        teacher_size=dataset.teacher_size,
        teacher_precision=teacher.precision,  # type: ignore[attr-defined]
    )
    target = folder / f"teacher-{fingerprint}"
    return _build(target, lambda path: _write_arrays(path, dataset, views, workers, compute))
