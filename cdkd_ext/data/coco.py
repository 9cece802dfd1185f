"""People and their keypoints from a COCO-format annotation file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext._checks import check, fail
from cdkd_ext.data.joints import JointSet


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person.

    Attributes:
        image_path: the picture's file.
        image_id: the picture's id in the annotation file.
        annotation_id: the person's id in the annotation file.
        box: (4,) float32, (x, y, width, height) in image pixels, width and height positive.
        keypoints: (J, 2) float32, (x, y) in image pixels, pixel centres at integers; 0 where not annotated.
        visible: (J,) float32, 1 where the joint is annotated (occluded or not), else 0.
        area: of the person in square pixels; the box's where the file has none.
        head_size: the reference length of PCKh in pixels; nan where the file has none.
        image_size: (height, width) that the file claims for the picture, if it does.
    """

    image_path: Path
    image_id: int | str
    annotation_id: int | str
    box: npt.NDArray[np.float32]
    keypoints: npt.NDArray[np.float32]
    visible: npt.NDArray[np.float32]
    area: float
    head_size: float
    image_size: tuple[int, int] | None = None


def load_coco_persons(
    annotation_file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str],
    *,
    joints: JointSet | None = None,
    min_keypoints: int = 1,
) -> tuple[list[Person], JointSet]:
    """Read the people of a COCO-format keypoint file, in the file's order.

    Crowds (``iscrowd``) and other categories are left out. Where a person carries ``head_size``, it is kept.

    Args:
        annotation_file: JSON with ``images``, ``annotations`` and ``categories``.
        image_folder: where the images' ``file_name`` start from.
        joints: the joint set to use; without it, the category tells names, skeleton, flip pairs and sigmas.
        min_keypoints: people with fewer annotated joints are left out. With 0, people without any stay (their
            ``keypoints`` may be absent): they can train a student by distillation alone.

    Returns:
        The people (at least one) and their joint set.

    Raises:
        InputError: the file or a picture is missing, or a field is missing or wrong; it names both.
    """
    source = str(annotation_file)
    check(min_keypoints >= 0, "min_keypoints", min_keypoints, "a count")
    content = _read_json(source)
    check(
        isinstance(content, dict),
        source,
        type(content).__name__,
        "an object with images, annotations, categories",
    )
    category = _keypoint_category(_list(content, "categories", source), source)
    if joints is None:
        joints = JointSet.from_category(category, f"{source}: categories")
    elif "keypoints" in category:
        names = category["keypoints"]
        check(
            names == list(joints.names),
            f"{source}: categories.keypoints",
            names,
            f"the joints {joints.names}",
        )
    images = _images(_list(content, "images", source), Path(image_folder), source)

    persons = []
    for i, annotation in enumerate(_list(content, "annotations", source)):
        field = f"{source}: annotations[{i}]"
        check(isinstance(annotation, dict), field, type(annotation).__name__, "an object")
        if annotation.get("category_id", category["id"]) != category["id"] or annotation.get("iscrowd"):
            continue
        person = _person(annotation, images, joints, min_keypoints, field)
        if person is not None:
            persons.append(person)
    check(
        persons,
        f"{source}: annotations",
        "none",
        f"at least one person with {min_keypoints} or more annotated joints",
    )
    _check_files(persons, source)
    return persons, joints


def _read_json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except OSError as error:
        fail(path, error.strerror or "an unreadable file", "a readable JSON file")
    except (ValueError, RecursionError) as error:
        empty = os.path.getsize(path) == 0
        fail(path, "an empty file" if empty else f"malformed JSON ({error})", "valid JSON")


def _list(content: Mapping[str, Any], key: str, source: str) -> list[Any]:
    check(key in content, f"{source}: {key}", "no such key", "a list")
    value = content[key]
    check(isinstance(value, list), f"{source}: {key}", type(value).__name__, "a list")
    return value


def _keypoint_category(categories: list[Any], source: str) -> Mapping[str, Any]:
    """The category that has keypoints; of several, the one called person."""
    field = f"{source}: categories"
    for i, category in enumerate(categories):
        check(
            isinstance(category, dict) and "id" in category, f"{field}[{i}]", category, "an object with an id"
        )
    found = [category for category in categories if "keypoints" in category] or categories
    if len(found) > 1:
        found = [category for category in found if category.get("name") == "person"]
    check(
        len(found) == 1, field, f"{len(found)} of them", "one category with keypoints, or one called person"
    )
    return found[0]


def _images(
    images: list[Any], folder: Path, source: str
) -> dict[int | str, tuple[Path, tuple[int, int] | None]]:
    """The path and claimed (height, width) of each image id."""
    result: dict[int | str, tuple[Path, tuple[int, int] | None]] = {}
    for i, image in enumerate(images):
        field = f"{source}: images[{i}]"
        check(isinstance(image, dict), field, type(image).__name__, "an object")
        identity = _identity(image, "id", field)
        check(identity not in result, f"{field}.id", repr(identity), "a unique id")
        name = image.get("file_name", "no such key")
        check(
            "file_name" in image and isinstance(name, str) and name,
            f"{field}.file_name",
            repr(name),
            "a file name",
        )
        size = None
        if image.get("height") and image.get("width"):
            size = (_number(image, "height", field), _number(image, "width", field))
        result[identity] = (folder / name, None if size is None else (int(size[0]), int(size[1])))
    return result


def _person(
    annotation: Mapping[str, Any],
    images: Mapping[int | str, tuple[Path, tuple[int, int] | None]],
    joints: JointSet,
    min_keypoints: int,
    field: str,
) -> Person | None:
    """The person of an annotation; None with too few annotated joints."""
    keypoints, visible = _keypoints(annotation, len(joints), min_keypoints, field)
    if visible.sum() < min_keypoints:
        return None
    image_id = _identity(annotation, "image_id", field)
    check(image_id in images, f"{field}.image_id", repr(image_id), "the id of one of the images")
    box = np.array(_numbers(annotation, "bbox", 4, field), dtype=np.float32)
    check(box[2] > 0 and box[3] > 0, f"{field}.bbox", annotation["bbox"], "a positive width and height")
    path, image_size = images[image_id]
    return Person(
        image_path=path,
        image_id=image_id,
        annotation_id=_identity(annotation, "id", field),
        box=box,
        keypoints=keypoints,
        visible=visible,
        area=float(box[2] * box[3]) if annotation.get("area") is None else _number(annotation, "area", field),
        head_size=math.nan
        if annotation.get("head_size") is None
        else _number(annotation, "head_size", field),
        image_size=image_size,
    )


def _keypoints(
    annotation: Mapping[str, Any], count: int, min_keypoints: int, field: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Coordinates (J, 2), 0 where not annotated, and the annotated joints (J,)."""
    if min_keypoints == 0 and annotation.get("keypoints") is None:
        return np.zeros((count, 2), np.float32), np.zeros(count, np.float32)
    values = np.array(_numbers(annotation, "keypoints", 3 * count, field), dtype=np.float32).reshape(count, 3)
    check(
        np.isin(values[:, 2], (0, 1, 2)).all(),
        f"{field}.keypoints",
        f"visibilities {values[:, 2].tolist()}",
        "0 (not annotated), 1 (occluded) or 2 (visible)",
    )
    visible = (values[:, 2] > 0).astype(np.float32)
    return values[:, :2] * visible[:, None], visible


def _identity(entry: Mapping[str, Any], key: str, field: str) -> int | str:
    value = entry.get(key, "no such key")
    check(
        key in entry and isinstance(value, int | str) and not isinstance(value, bool),
        f"{field}.{key}",
        value if key not in entry else repr(value),
        "an integer or a string",
    )
    return value


def _number(entry: Mapping[str, Any], key: str, field: str) -> float:
    value = entry[key]
    check(
        type(value) in (int, float) and math.isfinite(value), f"{field}.{key}", repr(value), "a finite number"
    )
    return float(value)


def _numbers(entry: Mapping[str, Any], key: str, count: int, field: str) -> list[float]:
    field = f"{field}.{key}"
    check(key in entry, field, "no such key", f"a list of {count} numbers")
    values = entry[key]
    check(isinstance(values, list), field, type(values).__name__, f"a list of {count} numbers")
    check(len(values) == count, field, f"{len(values)} numbers", f"{count} numbers")
    for value in values:
        check(type(value) in (int, float) and math.isfinite(value), field, repr(value), "finite numbers")
    return values


def _check_files(persons: list[Person], source: str) -> None:
    """Check that the people's pictures exist: one listing per folder, not a question per picture."""
    listings: dict[Path, set[str]] = {}
    for person in persons:
        folder, name = person.image_path.parent, person.image_path.name
        if folder not in listings:
            try:
                with os.scandir(folder) as entries:
                    listings[folder] = {entry.name for entry in entries}
            except OSError as error:
                fail(
                    str(folder),
                    error.strerror or "an unreadable folder",
                    f"the folder of the pictures of {source}",
                )
        check(
            name in listings[folder],
            f"{source}: file_name of image {person.image_id}",
            str(person.image_path),
            "an existing picture",
        )
