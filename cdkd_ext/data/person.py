"""Annotated or detected people, and the set of them that a network is measured on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import fail
from cdkd_ext.joints import JointSet
from cdkd_ext.resampling import Resample

ANNOTATED_BOXES = "ground truth"


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person.

    Attributes:
        image_path: the image's file.
        image_id: the image's id in the annotation file.
        annotation_id: the person's id in the annotation file, or a detected box's place in the detector's.
        box: (4,) float32, (x, y, width, height) in image pixels, width and height positive.
        keypoints: (J, 2) float32, (x, y) in image pixels, pixel centres at integers; 0 where not annotated.
        annotated: (J,) float32, 1 where the joint is annotated (occluded or not), else 0.
        area: of the person in square pixels; the box's where the file has none.
        head_size: the reference length of PCKh in pixels; nan where the file has none.
        image_size: (height, width) that the file claims for the image, if it does.
        score: the detector's confidence in the box; 1 for an annotated one.
        category_id: of the person's category in the annotation file, if it tells one.
        upright: whether the box is in the image as its EXIF orientation tag turns it, not as stored.
    """

    image_path: Path
    image_id: int | str
    annotation_id: int | str
    box: npt.NDArray[np.float32]
    keypoints: npt.NDArray[np.float32]
    annotated: npt.NDArray[np.float32]
    area: float
    head_size: float
    image_size: tuple[int, int] | None = None
    score: float = 1.0
    category_id: int | str | None = None
    upright: bool = False


@dataclass(frozen=True)
class EvaluationSet:
    """People to predict, and what their predictions are measured against.

    Attributes:
        persons: the people, at least one.
        joints: their joint set.
        metric: "pckh", "AP" for COCO's average precision, or "none" where the annotations are unknown.
        annotation_file: the annotations.
        boxes: where the people's boxes come from, in words: `ANNOTATED_BOXES`, or a detector's file.
        reference: where PCKh's reference lengths come from, in words.
        padding: how much larger than the box a crop is; None leaves it to the network that is measured.
        category: name or id of the people's category in the annotations, where the user chose one.
        resample: how crops are made of larger regions; None leaves it to the network that is measured.
        camera_faults: strength in [0, 1] of the faults that crops are given; see `cdkd_ext.data.add_camera_faults`.
    """

    persons: Sequence[Person]
    joints: JointSet
    metric: Literal["pckh", "AP", "none"]
    annotation_file: Path
    boxes: str
    reference: str = ""
    padding: float | None = None
    category: int | str | None = None
    resample: Resample | None = None
    camera_faults: float = 0.0


def check_images_exist(persons: list[Person], source: str) -> None:
    """Look for the people's images with one listing per folder, not one question per image."""
    listings: dict[Path, set[str]] = {}
    for person in persons:
        folder, name = person.image_path.parent, person.image_path.name
        if folder not in listings:
            try:
                with os.scandir(folder) as entries:
                    listings[folder] = {entry.name for entry in entries}
            except OSError as error:
                got = error.strerror or "an unreadable folder"
                fail(str(folder), got, f"the folder of the images of {source}")
        if name not in listings[folder]:
            field = f"{source}: file_name of image {person.image_id}"
            fail(field, f"{person.image_path}, which does not exist", "an image")
