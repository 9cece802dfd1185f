"""People from COCO-format files: annotated with keypoints, or found by a detector."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cdkd_ext.data.json_object import JsonObject
from cdkd_ext.data.person import Person, check_images_exist
from cdkd_ext.errors import check, fail
from cdkd_ext.joints import JointSet

_logger = logging.getLogger(__name__)
_SHOWN = 3


@dataclass(frozen=True)
class _ImageFile:
    path: Path
    size: tuple[int, int] | None


def load_coco_persons(
    annotation_file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str],
    *,
    joints: JointSet | None = None,
    min_keypoints: int = 1,
    clip_boxes: bool = False,
    category: int | str | None = None,
    require_keypoints: bool | None = None,
) -> tuple[list[Person], JointSet]:
    """Read the people of a COCO-format keypoint file, in the file's order.

    Crowds (``iscrowd``) and other categories are left out. Where a person carries ``head_size``, it is kept.
    ``keypoints`` that are absent, null or an empty list are all the same: no joint is annotated.

    Args:
        annotation_file: JSON with ``images``, ``annotations`` and ``categories``.
        image_folder: where the images' ``file_name`` start from.
        joints: the joint set to use; without it, the category tells names, skeleton, flip pairs and sigmas.
        min_keypoints: people with fewer annotated joints are left out. With 0, people without any stay (their
            ``keypoints`` may be absent): they can train a student by distillation alone. Those of them whose box is
            absent or without width or height are left out, and counted in a warning of the log.
        clip_boxes: cut the boxes to the images and their last row and column of pixels off, as the published
            COCO code does; people without area or with nothing left are left out.
        category: name or id of the people's category; None takes all that have the same joints, or the one called
            person.
        require_keypoints: whether a person without ``keypoints`` is an error, and not just one without annotated
            joints; None where `min_keypoints` is positive.

    Returns:
        The people (at least one) and their joint set.

    Raises:
        InputError: the file or an image is missing, or a field is missing or wrong (also the box of a person with
            annotated joints); it names both.
    """
    check(min_keypoints >= 0, "min_keypoints", min_keypoints, "a count")
    content = JsonObject.read(annotation_file)
    categories = keypoint_categories(content, category)
    joints = joint_set(categories[0], joints)
    ids = category_ids(categories)
    files = _image_files(content, Path(image_folder))

    required = min_keypoints > 0 if require_keypoints is None else require_keypoints

    persons, boxless = [], []
    for annotation in content.objects("annotations"):
        if not in_categories(annotation, ids) or annotation.flag("iscrowd"):
            continue
        keypoints, annotated = _keypoints(annotation, len(joints), required=required)
        if annotated.sum() < min_keypoints:
            continue
        if not annotated.any() and not _has_box(annotation):
            boxless.append(annotation)
            continue
        person = _person(annotation, files, keypoints, annotated)
        if clip_boxes:
            box = _clip(person.box, person.image_size)
            if not (person.area > 0 and box[2] > 0 and box[3] > 0):
                continue
            person = replace(person, box=box)
        persons.append(person)
    _warn_of_boxless(boxless, str(annotation_file))
    expected = f"at least one person with {min_keypoints} or more annotated joints"
    check(persons, f"{annotation_file}: annotations", "none", expected)
    check_images_exist(persons, str(annotation_file))
    return persons, joints


def load_coco_detections(
    annotation_file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str],
    detection_file: str | os.PathLike[str],
    *,
    joints: JointSet | None = None,
    min_score: float = 0.0,
    category: int | str | None = None,
) -> tuple[list[Person], JointSet]:
    """Read a detector's boxes for the images of a COCO-format keypoint file, in the detector's order.

    The file is in COCO's results format: a list of ``image_id``, ``category_id``, ``bbox`` and ``score``, like
    ``COCO_val2017_detections_AP_H_56_person.json``. Other categories and boxes without area are left out. The
    people's annotations are not read: ``keypoints`` and ``annotated`` are 0, ``head_size`` is nan.

    Args:
        annotation_file: JSON with ``images`` and ``categories``.
        image_folder: where the images' ``file_name`` start from.
        detection_file: the boxes.
        joints: the joint set to use; without it, the category tells it.
        min_score: boxes below are left out.
        category: name or id of the people's category; None takes all that have the same joints, or the one called
            person.

    Returns:
        One person per box (at least one) and their joint set.

    Raises:
        InputError: a file or an image is missing, or a field is missing or wrong; it names both.
    """
    content = JsonObject.read(annotation_file)
    categories = keypoint_categories(content, category)
    joints = joint_set(categories[0], joints)
    ids = category_ids(categories)
    files = _image_files(content, Path(image_folder))

    persons = []
    for i, detection in enumerate(JsonObject.read_list(detection_file)):
        if detection.identity("category_id") not in ids:
            continue
        image_id = detection.identity("image_id")
        if image_id not in files:
            fail(f"{detection.prefix}image_id", repr(image_id), f"one of the images of {annotation_file}")
        box = np.array(detection.numbers("bbox", 4), np.float32)
        score = detection.number("score")
        if score < min_score or not (box[2] > 0 and box[3] > 0):
            continue
        person = Person(
            image_path=files[image_id].path,
            image_id=image_id,
            annotation_id=i,
            box=box,
            keypoints=np.zeros((len(joints), 2), np.float32),
            annotated=np.zeros(len(joints), np.float32),
            area=float(box[2] * box[3]),
            head_size=math.nan,
            image_size=files[image_id].size,
            score=score,
            category_id=detection.identity("category_id"),
        )
        persons.append(person)
    expected = (
        f"at least one box of category {' or '.join(map(str, ids))} with a score of {min_score} or more"
    )
    check(persons, str(detection_file), "none", expected)
    check_images_exist(persons, str(annotation_file))
    return persons, joints


def keypoint_category_id(
    annotation_file: str | os.PathLike[str], category: int | str | None = None
) -> int | str:
    """Return the id of the people's category in a COCO-format file, of several that share the joints the first's.

    Raises:
        InputError: the file cannot be read, has no such category, or several with different joints.
    """
    return category_ids(keypoint_categories(JsonObject.read(annotation_file), category))[0]


def joint_set(category: JsonObject, given: JointSet | None) -> JointSet:
    """The joints of a keypoint category, or those that the user gave, if they are the category's."""
    # the prefix without its final dot names the category itself
    place = category.prefix.removesuffix(".")
    if given is None:
        return JointSet.from_category(category.value, place)
    if category.has_values("keypoints"):
        names = category.value["keypoints"]
        check(names == list(given.names), f"{place}.keypoints", names, f"{list(given.names)}")
    return given


def _clip(box: npt.NDArray[np.float32], size: tuple[int, int] | None) -> npt.NDArray[np.float32]:
    """The box within the image, its far sides at the centres of the last pixels inside."""
    height, width = size or (math.inf, math.inf)
    x, y, w, h = (float(value) for value in box)
    left, top = max(0.0, x), max(0.0, y)
    right = min(width - 1, left + max(0.0, w - 1))
    bottom = min(height - 1, top + max(0.0, h - 1))
    return np.array([left, top, right - left, bottom - top], np.float32)


def keypoint_categories(content: JsonObject, chosen: int | str | None = None) -> list[JsonObject]:
    """The categories of a COCO-format file whose annotations are people, at least one.

    Without a choice, they are those that have keypoints, all together if they have the same ones; where they differ,
    or where none has keypoints and there are several, it is the one called person.

    Args:
        content: the file.
        chosen: name or id of the only category.

    Raises:
        InputError: there is no such category, or it takes a choice; the message lists what there is.
    """
    categories = list(content.objects("categories"))
    for category in categories:
        category.identity("id")
    if chosen is not None:
        found = [category for category in categories if _is_called(category, chosen)]
        expected = "the name or the id of one category"
        check(len(found) == 1, "category", f"{chosen!r} ({content.prefix}{_described(categories)})", expected)
        return found
    with_joints = [category for category in categories if category.has_values("keypoints")]
    found = with_joints or categories
    if len(found) > 1:
        persons = [category for category in found if _is_called(category, "person")]
        if len(persons) == 1:
            found = persons
        elif not (with_joints and _share_joints(found)):
            found = []
    expected = (
        "one category with keypoints, several with the same ones, one called person, or a category to take"
    )
    got = f"{len(categories)} of them" + (f", {_described(categories)}" if categories else "")
    check(found, content.prefix + "categories", got, expected)
    return found


def category_ids(categories: Sequence[JsonObject]) -> list[int | str]:
    """The ids of categories, in their order."""
    return [category.identity("id") for category in categories]


def in_categories(annotation: JsonObject, ids: Sequence[int | str]) -> bool:
    """Whether an annotation is of one of the categories; without a category of its own it is."""
    return not annotation.has("category_id") or annotation.identity("category_id") in ids


def _is_called(category: JsonObject, name: int | str) -> bool:
    named = category.has("name") and category.text("name") == name
    # a command line cannot tell 3 from "3"
    return named or str(category.identity("id")) == str(name)


def _share_joints(categories: Sequence[JsonObject]) -> bool:
    """Whether the categories have the same joints in the same order, and mirror them alike."""
    fields = ("keypoints", "flip_pairs", "sigmas")
    return all(
        all(category.value.get(field) == categories[0].value.get(field) for field in fields)
        for category in categories
    )


def _described(categories: Sequence[JsonObject]) -> str:
    parts = []
    for category in categories:
        name = repr(category.text("name")) if category.has("name") else "without a name"
        joints = category.value.get("keypoints")
        count = f"{len(joints)} keypoints" if isinstance(joints, list) and joints else "no keypoints"
        parts.append(f"{name} (id {category.identity('id')}, {count})")
    return ", ".join(parts)


def _image_files(content: JsonObject, folder: Path) -> dict[int | str, _ImageFile]:
    files: dict[int | str, _ImageFile] = {}
    for image in content.objects("images"):
        identity = image.identity("id")
        check(identity not in files, f"{image.prefix}id", f"{identity!r} again", "a unique id")
        height, width = (int(image.number(key)) if image.has(key) else 0 for key in ("height", "width"))
        # some tools write 0 for sizes they do not know
        size = (height, width) if height and width else None
        files[identity] = _ImageFile(folder / image.text("file_name"), size)
    return files


def _keypoints(
    annotation: JsonObject, count: int, *, required: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Coordinates (J, 2), 0 where not annotated, and 1 for the annotated joints (J,)."""
    if not annotation.has_values("keypoints"):
        if required:
            got = f"{annotation.value['keypoints']!r}" if "keypoints" in annotation.value else "no such key"
            fail(
                f"{annotation.prefix}keypoints",
                got,
                f"a list of {3 * count} numbers, or require_keypoints False",
            )
        return np.zeros((count, 2), np.float32), np.zeros(count, np.float32)
    values = annotation.numbers("keypoints", 3 * count)
    visibilities = values[2::3]
    for value in visibilities:
        if value not in (0, 1, 2):
            expected = "visibilities 0 (not annotated), 1 (occluded) or 2 (visible)"
            fail(f"{annotation.prefix}keypoints", f"visibility {value}", expected)
    annotated = np.array([value > 0 for value in visibilities], np.float32)
    return np.array(values, np.float32).reshape(count, 3)[:, :2] * annotated[:, None], annotated


def _has_box(annotation: JsonObject) -> bool:
    if not annotation.has_values("bbox"):
        return False
    _, _, width, height = np.array(annotation.numbers("bbox", 4), np.float32)
    return bool(width > 0 and height > 0)


def _warn_of_boxless(annotations: Sequence[JsonObject], source: str) -> None:
    if annotations:
        names = [annotation.prefix.removeprefix(f"{source}: ").rstrip(".") for annotation in annotations]
        more = ", ..." if len(names) > _SHOWN else ""
        _logger.warning(
            "%s: left out people without annotated joints whose box has no width or height: %d (%s%s)",
            source,
            len(names),
            ", ".join(names[:_SHOWN]),
            more,
        )


def _person(
    annotation: JsonObject,
    files: Mapping[int | str, _ImageFile],
    keypoints: npt.NDArray[np.float32],
    annotated: npt.NDArray[np.float32],
) -> Person:
    image_id = annotation.identity("image_id")
    check(image_id in files, f"{annotation.prefix}image_id", repr(image_id), "the id of one of the images")
    box = np.array(annotation.numbers("bbox", 4), np.float32)
    if not (box[2] > 0 and box[3] > 0):
        fail(f"{annotation.prefix}bbox", annotation.value["bbox"], "a positive width and height")
    return Person(
        image_path=files[image_id].path,
        image_id=image_id,
        annotation_id=annotation.identity("id"),
        box=box,
        keypoints=keypoints,
        annotated=annotated,
        area=annotation.number("area") if annotation.has("area") else float(box[2] * box[3]),
        head_size=annotation.number("head_size") if annotation.has("head_size") else math.nan,
        image_size=files[image_id].size,
        category_id=annotation.identity("category_id") if annotation.has("category_id") else None,
    )
