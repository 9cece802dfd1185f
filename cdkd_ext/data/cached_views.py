"""Fixed views: each person's crops drawn once, and whatever is computed from them computed once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cdkd_ext.data.batches import Batch, Key, lost_workers_named
from cdkd_ext.data.camera_faults import VERSION as FAULTS_VERSION
from cdkd_ext.data.crops import VERSION as CROPS_VERSION
from cdkd_ext.data.dataset import PoseDataset
from cdkd_ext.data.mirrored_views import MirroredViews
from cdkd_ext.data.person import Person
from cdkd_ext.data.photometric import VERSION as PHOTOMETRIC_VERSION
from cdkd_ext.errors import InputError, check, fail, shortened
from cdkd_ext.files import known_digest, new_folder, remove_leftovers

STUDENT_FIELDS = ("image", "keypoints", "annotated", "labelled", "to_image")
CHUNK = 64
_Chunk = tuple[list[Key], dict[str, Tensor]]


class StoredArrays:
    """Memory-mapped arrays of shape (people, views, …), one file per field.

    Args:
        folder: where `store_views` wrote.
        fields: that have to be there.

    Raises:
        InputError: a file is damaged or missing, or another one's people or views differ.
    """

    def __init__(self, folder: Path, fields: Sequence[str] = ()) -> None:
        self._arrays = {path.stem: stored_array(path) for path in sorted(folder.glob("*.npy"))}
        missing = [name for name in fields if name not in self._arrays]
        check(
            self._arrays and not missing, str(folder), f"no {', '.join(missing) or 'arrays'}", _whole(folder)
        )
        shapes = {array.shape[:2] for array in self._arrays.values()}
        check(len(shapes) == 1, str(folder), f"people and views {sorted(shapes)}", _whole(folder))

    def __len__(self) -> int:
        """Number of people."""
        return len(next(iter(self._arrays.values())))

    def read(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Return the fields of the (index, view) keys, stacked, in the types in which they are stored."""
        index, view = np.asarray(keys).T
        return {name: torch.from_numpy(array[index, view]) for name, array in self._arrays.items()}


def stored_array(path: Path) -> npt.NDArray[Any]:
    """A memory-mapped array of a stored field.

    Raises:
        InputError: the file is damaged or missing.
    """
    try:
        return np.asanyarray(np.load(path, mmap_mode="r"))
    except (OSError, EOFError, ValueError) as error:
        fail(str(path), f"a damaged file ({shortened(str(error), 80)})", _whole(path.parent))


def _whole(folder: Path) -> str:
    return f"a whole store; delete {folder} and run the same command again"


class StoredViews(Protocol):
    """What reads stored views: `StoredArrays` or `ShardedViews`."""

    def __len__(self) -> int:
        """Number of people."""
        ...

    def read(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Return the fields of the (index, view) keys, stacked."""
        ...


class FixedViews(Dataset[Batch]):
    """Batches of stored samples.

    Args:
        views: where `build_student_views` wrote, or what reads the views.
        teacher_outputs: returns the stored output of a teacher for (index, view) keys, the batch's
            ``teacher_output``; None where there is no teacher.
        mirrored: makes further views of the stored ones; None does not.
    """

    def __init__(
        self,
        views: Path | StoredViews,
        teacher_outputs: Callable[[Sequence[Key]], object] | None = None,
        mirrored: MirroredViews | None = None,
    ) -> None:
        self._views: StoredViews = StoredArrays(views, STUDENT_FIELDS) if isinstance(views, Path) else views
        self._teacher_outputs = teacher_outputs
        self._mirrored = mirrored

    def with_mirrored(self, mirrored: MirroredViews) -> FixedViews:
        """The same views, and their mirror images."""
        return FixedViews(self._views, self._teacher_outputs, mirrored)

    @property
    def mirrors(self) -> bool:
        """Whether there are mirror images too."""
        return self._mirrored is not None

    def __len__(self) -> int:
        return len(self._views)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples of the (index, view) keys, stacked.

        Where views are mirrored, ``mirrored`` (B,) bool says which rows are. Their teacher's output is still that of the
        stored views: it is mirrored on the device (`on_device`).
        """
        mask = None
        if self._mirrored is not None:
            keys, mask = self._mirrored.stored(keys)
        samples: Batch = {**self._views.read(keys), "index": torch.tensor([index for index, _ in keys])}
        if self._mirrored is not None and mask is not None:
            samples = {**self._mirrored.samples(samples, mask), "mirrored": mask}
        if self._teacher_outputs is not None:
            samples["teacher_output"] = self._teacher_outputs(keys)
        return samples

    def on_device(self, batch: Batch) -> Batch:
        """Mirror the teacher's output of the batch's mirrored views."""
        if self._mirrored is None:
            return batch
        rest = {name: value for name, value in batch.items() if name != "mirrored"}
        if self._mirrored.output is not None and "teacher_output" in batch:
            rest["teacher_output"] = self._mirrored.output(batch["teacher_output"], batch["mirrored"])
        return rest

    def __getitem__(self, keys: list[Key]) -> Batch:
        return self.batch(keys)


def build_student_views(dataset: PoseDataset, views: int, folder: Path, *, workers: int = 0) -> Path:
    """Store `views` crops of every person with their labels; return the folder, reused where it exists.

    Args:
        dataset: the training people; its teacher crops, if any, are not stored.
        views: number of views per person.
        folder: parent of the stored folder, whose name is a fingerprint of everything that goes in.
        workers: processes that load images.
    """

    def compute(samples: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: samples[name] for name in STUDENT_FIELDS}

    return store_views(
        dataset,
        views,
        folder,
        "views",
        compute,
        workers=workers,
        fields=STUDENT_FIELDS,
        **student_identity(dataset),
    )


def student_identity(dataset: PoseDataset) -> dict[str, object]:
    """What the student's crops depend on beside the people, the views and their size."""
    faults = {"camera_faults": [dataset.camera_faults, FAULTS_VERSION]} if dataset.camera_faults else {}
    return {"resample": dataset.resample, **faults}


def store_views(
    dataset: PoseDataset,
    views: int,
    folder: Path,
    kind: str,
    compute: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    *,
    workers: int = 0,
    **identity: object,
) -> Path:
    """Store what a function computes from `views` views of every person; return the folder, reused where it exists.

    Args:
        dataset: the training people.
        views: number of views per person.
        folder: parent of the stored folder.
        kind: start of the stored folder's name; a fingerprint of everything that goes in follows.
        compute: takes the stacked fields of some samples and returns the named fields to store, one row per sample.
        workers: processes that load images.
        identity: what else `compute` depends on, for the fingerprint.
    """
    target = folder / f"{kind}-{_fingerprint(dataset, views, identity)}"
    remove_leftovers(target)
    if not target.is_dir():
        try:
            with new_folder(target) as temporary:
                _write_arrays(temporary, dataset, views, workers, compute)
        except InputError:
            # another run may finish the same folder first
            if not target.is_dir():
                raise
    return target


def image_fingerprint(persons: Sequence[Person]) -> bytes:
    """What changes when an image does that crops were made of: the content of all files, wherever they lie."""
    digest = hashlib.sha256()
    described: dict[Path, str] = {}
    for person in persons:
        path = Path(person.image_path)
        if path not in described:
            try:
                described[path] = known_digest(path)
            except OSError:  # reading it will tell
                described[path] = str(path)
        digest.update(described[path].encode())
        digest.update(b"upright" if person.upright else b"stored")
    return digest.digest()


def _people(dataset: PoseDataset) -> hashlib._Hash:
    """A digest of everybody's image, box and annotations, of the joints, and of how crops are made of them."""
    digest = hashlib.sha256(image_fingerprint(dataset.persons))
    for person in dataset.persons:
        for values in (person.box, person.keypoints, person.annotated):
            digest.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
    # which joints change places in a mirrored view, and which decide about crops of half a body
    joints = [dataset.joints.flip_permutation, dataset.joints.upper_body, CROPS_VERSION]
    digest.update(json.dumps(joints).encode())
    return digest


def _fingerprint(dataset: PoseDataset, views: int, identity: dict[str, object]) -> str:
    digest = _people(dataset)
    digest.update(dataset.labelled.tobytes())
    settings = {
        "size": dataset.size,
        "augmentation": dataset.augmentation.identity() if dataset.augmentation else None,
        "seed": dataset.seed,
        "labelled_fraction": dataset.labelled_fraction,
        "padding": dataset.padding,
        "views": views,
        **identity,
        **later_options(dataset),
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def later_options(dataset: PoseDataset) -> dict[str, object]:
    """What the identity of stored views tells about unbiased crops and changed pixels: nothing where there are none."""
    chosen = [dataset.unbiased, dataset.teacher_unbiased]
    unbiased = {"unbiased": chosen} if any(chosen) else {}
    pixels = dataset.photometric
    changed = {"photometric": [asdict(pixels), PHOTOMETRIC_VERSION]} if pixels.active else {}
    return {**unbiased, **changed}


def new_array(
    path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> np.memmap[Any, np.dtype[np.generic]]:
    """A memory-mapped array in a new file whose room on the disk is taken at once.

    Without that, the first page that finds no room would kill the process.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _write_arrays(
    folder: Path,
    dataset: PoseDataset,
    views: int,
    workers: int,
    compute: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> None:
    arrays: dict[str, np.memmap] = {}
    with lost_workers_named():
        all_keys = [(index, view) for index in range(len(dataset)) for view in range(views)]
        for keys, samples in _chunks(dataset, all_keys, workers):
            index, view = np.asarray(keys).T
            for name, tensor in compute(samples).items():
                values = tensor.numpy()
                if name not in arrays:
                    shape = (len(dataset), views, *values.shape[1:])
                    arrays[name] = new_array(folder / f"{name}.npy", values.dtype, shape)
                arrays[name][index, view] = values
    for array in arrays.values():
        array.flush()


def _chunks(dataset: PoseDataset, keys: Sequence[Key], workers: int) -> DataLoader[_Chunk]:
    chunks = [list(keys[start : start + CHUNK]) for start in range(0, len(keys), CHUNK)]
    return DataLoader(_Keyed(dataset), batch_size=None, sampler=chunks, num_workers=workers)


class _Keyed(Dataset[_Chunk]):
    def __init__(self, dataset: PoseDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, keys: list[Key]) -> _Chunk:
        samples = [self.dataset[key] for key in keys]
        return keys, {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
