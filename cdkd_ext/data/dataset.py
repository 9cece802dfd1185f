"""Paired-resolution crops of people, as a torch data set."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from cdkd_ext.data.augmentation import Augmentation
from cdkd_ext.data.camera_faults import add_camera_faults, check_strength
from cdkd_ext.data.crops import (
    CropRegion,
    crop_matrix,
    invert_affine,
    region_from_box,
    transform_points,
    warp_crop,
)
from cdkd_ext.data.person import Person
from cdkd_ext.data.photometric import Photometric
from cdkd_ext.errors import check, check_option, check_type
from cdkd_ext.images import Image, read_image
from cdkd_ext.joints import JointSet
from cdkd_ext.resampling import DEFAULT_RESAMPLE, RESAMPLINGS, Resample

_FAULTS, _COLOURS, _HOLES = 1, 2, 3  # streams of random numbers beside that of the view's geometry

_AS_THEY_ARE = Photometric()


@dataclass(frozen=True, eq=False)
class View:
    """What is drawn for one view of a person; the student's crop follows from `matrix`.

    Attributes:
        index: of the person.
        region: the part of the image that both crops show.
        matrix: (2, 3) float64, image pixels to pixels of the student's crop.
        keypoints: (J, 2) float32, pixels of the student's crop; 0 where not annotated.
        annotated: (J,) float32.
        labelled: whether the person's annotations may be used.
        number: which of the person's views.
    """

    index: int
    region: CropRegion
    matrix: npt.NDArray[np.float64]
    keypoints: npt.NDArray[np.float32]
    annotated: npt.NDArray[np.float32]
    labelled: bool
    number: int = 0

    def labels(self) -> dict[str, torch.Tensor]:
        """A sample of `PoseDataset` without its images."""
        return {
            "keypoints": torch.from_numpy(self.keypoints),
            "annotated": torch.from_numpy(self.annotated.copy()),
            "labelled": torch.tensor(float(self.labelled)),
            "to_image": torch.from_numpy(invert_affine(self.matrix).astype(np.float32)),
            "index": torch.tensor(self.index),
        }


class PoseDataset(Dataset[dict[str, torch.Tensor]]):
    """Crops for a student and, from the same draw, for its teacher, each sampled from the whole image.

    ``dataset[index]`` is view 0 of a person, ``dataset[index, view]`` another augmented view. All randomness
    comes from (seed, index, view): the order of workers does not matter. A sample holds

    - ``image``: (3, h, w) uint8, RGB, the student's crop;
    - ``teacher_image``: (3, H, W) uint8, with `teacher_size` only;
    - ``keypoints``: (J, 2) float32, pixels of the student's crop; 0 where not annotated;
    - ``annotated``: (J,) float32, 1 where annotated, even if outside of the crop;
    - ``labelled``: () float32, 1 or 0. A sample without labels shows none: its ``annotated`` is all 0;
    - ``to_image``: (2, 3) float32, affine map from student crop pixels to image pixels;
    - ``index``: () int64.

    Args:
        persons: the people, at least one.
        joints: their joint set.
        size: (height, width) of the student's crops.
        teacher_size: (height, width) of the teacher's, with the same aspect ratio: its coordinates are the
            student's times the ratio of the sizes.
        augmentation: what to draw for a view; None for plain crops.
        seed: of the views and of the choice of the labelled people; not negative.
        labelled_fraction: part of the people, chosen by `seed`, who keep their labels. The choice for a
            smaller fraction lies within the choice for a larger one; above 0 it is at least one person.
        padding: factor around the box.
        footage: people without annotations, behind the others; they do not change whose labels are chosen.
        resample: how the student's crops are made of larger regions, "area" or "linear"; see `warp_crop`.
        teacher_resample: the same of the teacher's.
        camera_faults: strength in [0, 1] of what a worse camera would do to the student's crops, drawn for each view;
            see `add_camera_faults`. The teacher's stay as they are.
        photometric: what to draw for the pixels of a view: colours for both crops, holes for the student's.
        unbiased: whether the student's crops are, see `crop_matrix`.
        teacher_unbiased: the same of the teacher's. Where only one of both is, or both, its coordinates are not the
            student's times the ratio of the sizes.
    """

    def __init__(
        self,
        persons: Sequence[Person],
        joints: JointSet,
        *,
        size: tuple[int, int],
        teacher_size: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        labelled_fraction: float = 1.0,
        padding: float = 1.25,
        footage: Sequence[Person] = (),
        resample: Resample = DEFAULT_RESAMPLE,
        teacher_resample: Resample = DEFAULT_RESAMPLE,
        camera_faults: float = 0.0,
        photometric: Photometric = _AS_THEY_ARE,
        unbiased: bool = False,
        teacher_unbiased: bool = False,
    ) -> None:
        everybody = (*persons, *footage)
        check(len(everybody) > 0, "persons", "none", "at least one person")
        for i, person in enumerate(everybody):
            shape = person.keypoints.shape
            check(shape == (len(joints), 2), f"persons[{i}].keypoints", shape, f"shape ({len(joints)}, 2)")
        self.size = _image_size("size", size)
        self.teacher_size = None if teacher_size is None else _image_size("teacher_size", teacher_size)
        if self.teacher_size is not None:
            check(
                self.size[0] * self.teacher_size[1] == self.size[1] * self.teacher_size[0],
                "teacher_size",
                self.teacher_size,
                f"the aspect ratio of size {self.size}",
            )
        if augmentation is not None:
            check_type("augmentation", augmentation, Augmentation, "an Augmentation or None")
        check(seed >= 0, "seed", seed, "a non-negative integer")
        check(0 <= labelled_fraction <= 1, "labelled_fraction", labelled_fraction, "a number in [0, 1]")
        check(padding > 0, "padding", padding, "a positive number")
        check_option("resample", resample, RESAMPLINGS)
        check_option("teacher_resample", teacher_resample, RESAMPLINGS)
        check_strength("camera_faults", camera_faults)
        check_type("photometric", photometric, Photometric, "a Photometric")
        self.persons = everybody
        self.joints = joints
        self.augmentation = augmentation
        self.seed = operator.index(seed)
        self.padding = padding
        self.resample, self.teacher_resample = resample, teacher_resample
        self.camera_faults = camera_faults
        self.photometric = photometric
        self.unbiased, self.teacher_unbiased = unbiased, teacher_unbiased
        self.labelled_fraction = labelled_fraction
        chosen = _choose_labelled(tuple(persons), self.seed, labelled_fraction)
        self.labelled = np.concatenate([chosen, np.zeros(len(footage), dtype=bool)])
        self._flip = np.array(joints.flip_permutation)
        self._upper_body = np.array(joints.upper_body)

    def __len__(self) -> int:
        return len(self.persons)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        """Return a view of a person.

        Raises:
            IndexError: there is no such person.
            InputError: the image cannot be read; the message names the file.
        """
        index, view = index if isinstance(index, tuple) else (index, 0)
        use_one_thread_in_workers()
        drawn = self.view(index, view)
        return self.crops(self.image(index), drawn)

    def image(self, index: int) -> Image:
        """Read the image of a person, RGB (H, W, 3) uint8.

        Raises:
            InputError: it cannot be read; the message names the file.
        """
        person = self.persons[index]
        return read_image(person.image_path, person.image_size, upright=person.upright)

    def crops(self, image: Image, drawn: View, *, teacher: bool = True) -> dict[str, torch.Tensor]:
        """Return the sample of a view of a person, given the person's image; `teacher`: with the teacher's crop."""
        rng = partial(self._rng, drawn.index, drawn.number)
        crop = self._coloured(warp_crop(image, drawn.matrix, self.size, self.resample), rng)
        if self.camera_faults:
            crop = add_camera_faults(crop, rng(_FAULTS), self.camera_faults)
        if self.photometric.active:
            crop = self.photometric.drop(crop, rng(_HOLES))
        sample = {"image": _to_tensor(crop), **drawn.labels()}
        if teacher and self.teacher_size is not None:
            teacher_matrix = crop_matrix(drawn.region, self.teacher_size, unbiased=self.teacher_unbiased)
            crop = warp_crop(image, teacher_matrix, self.teacher_size, self.teacher_resample)
            sample["teacher_image"] = _to_tensor(self._coloured(crop, rng))
        return sample

    def _coloured(self, crop: Image, rng: Callable[[int], np.random.Generator]) -> Image:
        return self.photometric.jitter(crop, rng(_COLOURS)) if self.photometric.active else crop

    def view(self, index: int, view: int) -> View:
        """Draw a view of a person, without reading its image.

        Raises:
            IndexError: there is no such person.
            InputError: the view is negative.
        """
        index, view = operator.index(index), operator.index(view)
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        check(view >= 0, "view", view, "a non-negative integer")
        person = self.persons[index]
        labelled = bool(self.labelled[index])
        # what is not labelled must not leak, neither to a loss nor through a half-body crop
        annotated = person.annotated if labelled else np.zeros_like(person.annotated)
        region = region_from_box(person.box, self.size, self.padding)
        if self.augmentation is not None:
            region = self.augmentation.draw(
                self._rng(index, view), region, self.size, person.keypoints, annotated, self._upper_body
            )
        matrix = crop_matrix(region, self.size, unbiased=self.unbiased)
        keypoints = transform_points(person.keypoints, matrix)
        if region.flip:
            keypoints, annotated = keypoints[self._flip], annotated[self._flip]
        return View(index, region, matrix, keypoints * annotated[:, None], annotated, labelled, view)

    def _rng(self, index: int, view: int, *stream: int) -> np.random.Generator:
        """The source of what is random about a view; other numbers of a stream give other draws."""
        seeds = np.random.SeedSequence((self.seed, index, view), spawn_key=stream)
        return np.random.Generator(np.random.Philox(seeds))


def _image_size(argument: str, size: tuple[int, int]) -> tuple[int, int]:
    check(
        len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size),
        argument,
        size,
        "(height, width), two positive integers",
    )
    return size[0], size[1]


def _choose_labelled(persons: tuple[Person, ...], seed: int, fraction: float) -> npt.NDArray[np.bool_]:
    """(N,) true for the chosen people who have at least one annotated joint."""
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))).permutation(len(persons))
    count = max(round(fraction * len(persons)), 1) if fraction > 0 else 0
    known = np.array([person.annotated.any() for person in persons], dtype=bool)
    labelled = np.zeros(len(persons), dtype=bool)
    labelled[order[:count]] = True
    if count and known.any() and not (labelled & known).any():
        # one at least, where there is one
        labelled[order[known[order].argmax()]] = True
    return labelled & known


def _to_tensor(image: npt.NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, 3) to (3, H, W)."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)


def use_one_thread_in_workers() -> None:
    """Keep OpenCV to one thread in a loading process; how many it has in any other is its owner's choice.

    Its threads would compete with the other loading processes, and in a forked one they do not exist.
    """
    if get_worker_info() is not None:
        cv2.setNumThreads(0)
