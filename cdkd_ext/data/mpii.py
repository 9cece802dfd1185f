"""People and their keypoints from MPII's annotation files, in the form that HRNet's code uses."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cdkd_ext.data.json_object import JsonObject
from cdkd_ext.data.person import Person, check_images_exist
from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.joints import MPII_JOINTS, JointSet

_PIXELS_PER_SCALE = 200
# the centre is moved down so that the crop does not cut feet off
_LOWER = 15
# MPII's reference length over the diagonal of the head's rectangle
_HEAD_SIZE = 0.6
_JOINTS = len(MPII_JOINTS)


def load_mpii_persons(
    annotation_file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str],
    *,
    head_boxes: str | os.PathLike[str] | None = None,
    min_keypoints: int = 1,
) -> tuple[list[Person], JointSet]:
    """Read the people of MPII's ``train.json`` or ``valid.json``, in the file's order.

    Each entry has ``image``, ``center``, ``scale``, ``joints`` (16 pairs) and ``joints_vis`` (16 times 0 or 1; occluded
    joints are 1), in the 1-based coordinates of MATLAB. They become 0-based. A person's box is the square of 200 scale
    pixels around the centre, moved down by 15 scale pixels: grown by the usual 1.25 it is HRNet's crop.

    Args:
        annotation_file: a JSON list of people.
        image_folder: where ``image`` starts from.
        head_boxes: the official ``gt_valid.mat`` for the same people in the same order (needs scipy): its
            ``headboxes_src`` give ``head_size``, 0.6 times the diagonal; its ``pos_gt_src`` and ``jnt_missing``, where it
            has them, are the positions and the annotated joints of the official evaluation. Without it, ``head_size``
            is the field of that name in the entries (pixels), or nan.
        min_keypoints: people with fewer annotated joints are left out. With 0, ``joints`` may be absent, null or
            empty.

    Returns:
        The people (at least one) and `MPII_JOINTS`.

    Raises:
        InputError: a file or an image is missing, or a field is missing or wrong; it names both.
    """
    check(min_keypoints >= 0, "min_keypoints", min_keypoints, "a count")
    folder = Path(image_folder)
    persons = [
        _person(entry, folder, i, required=min_keypoints > 0)
        for i, entry in enumerate(JsonObject.read_list(annotation_file))
    ]
    if head_boxes is not None:
        persons = _with_ground_truth(
            persons, _read_ground_truth(str(head_boxes), str(annotation_file), persons)
        )
    persons = [person for person in persons if person.annotated.sum() >= min_keypoints]
    expected = f"at least one person with {min_keypoints} or more annotated joints"
    check(persons, str(annotation_file), "none", expected)
    check_images_exist(persons, str(annotation_file))
    return persons, MPII_JOINTS


def _person(entry: JsonObject, folder: Path, index: int, *, required: bool) -> Person:
    name = entry.text("image")
    x, y = entry.numbers("center", 2)
    scale = entry.number("scale")
    check(scale > 0, f"{entry.prefix}scale", scale, "a positive number")
    side = _PIXELS_PER_SCALE * scale
    keypoints, annotated = np.zeros((_JOINTS, 2), np.float32), np.zeros(_JOINTS, np.float32)
    if required or entry.has_values("joints"):
        flags = entry.numbers("joints_vis", _JOINTS)
        for flag in flags:
            if flag not in (0, 1):
                fail(f"{entry.prefix}joints_vis", repr(flag), "0 (not annotated) or 1")
        annotated = np.array(flags, np.float32)
        keypoints = _zero_based(np.array(entry.rows("joints", _JOINTS, 2)), annotated)
    return Person(
        image_path=folder / name,
        image_id=name,
        annotation_id=index,
        box=np.array([x - 1 - side / 2, y + _LOWER * scale - 1 - side / 2, side, side], np.float32),
        keypoints=keypoints,
        annotated=annotated,
        area=side * side,
        head_size=entry.number("head_size") if entry.has("head_size") else math.nan,
    )


def _zero_based(joints: npt.NDArray[Any], annotated: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return ((joints - 1) * annotated[:, None]).astype(np.float32)


class _GroundTruth(NamedTuple):
    """Head sizes (N,), and where the file has them joints (N, 16, 2), 1-based, and annotated (N, 16)."""

    head_sizes: npt.NDArray[np.float64]
    joints: npt.NDArray[np.float64] | None
    annotated: npt.NDArray[np.float32] | None


def _read_ground_truth(path: str, source: str, persons: list[Person]) -> _GroundTruth:
    content = _load_mat(path)
    count = len(persons)
    boxes = _array(content, "headboxes_src", (2, 2, count), path, source)
    head_sizes = _HEAD_SIZE * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    if "pos_gt_src" not in content or "jnt_missing" not in content:
        return _GroundTruth(head_sizes, None, None)
    joints = _array(content, "pos_gt_src", (_JOINTS, 2, count), path, source).transpose(2, 0, 1)
    annotated = (_array(content, "jnt_missing", (_JOINTS, count), path, source) == 0).T.astype(np.float32)
    # another order of the people would go unseen and give some plausible, wrong number
    both = annotated * np.stack([person.annotated for person in persons]) > 0
    apart = np.linalg.norm(joints - 1 - np.stack([person.keypoints for person in persons]), axis=-1)[both]
    check(
        np.isfinite(joints[annotated > 0]).all() and (apart.size == 0 or np.median(apart) <= 1),
        f"{path}: pos_gt_src",
        "joints in other places",
        f"the joints of {source}, person by person",
    )
    return _GroundTruth(head_sizes, joints, annotated)


def _with_ground_truth(persons: list[Person], truth: _GroundTruth) -> list[Person]:
    changed = []
    for i, person in enumerate(persons):
        fields: dict[str, Any] = {"head_size": float(truth.head_sizes[i])}
        if truth.joints is not None and truth.annotated is not None:
            annotated = truth.annotated[i]
            fields |= {
                "keypoints": _zero_based(np.where(annotated[:, None] > 0, truth.joints[i], 0), annotated)
            }
            fields |= {"annotated": annotated}
        changed.append(replace(person, **fields))
    return changed


def _load_mat(path: str) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise InputError(f"{path}: reading MATLAB files needs `pip install scipy`") from error
    try:
        return loadmat(path)
    except OSError as error:
        fail(path, error.strerror or "an unreadable file", "a MATLAB file such as MPII's gt_valid.mat")
    # a damaged file can raise almost anything from inside the parser
    except Exception as error:
        raise InputError(
            f"{path}: expected a MATLAB file, got a truncated or foreign one ({error})"
        ) from error


def _array(
    content: dict[str, Any], key: str, shape: tuple[int, ...], path: str, source: str
) -> npt.NDArray[np.float64]:
    place = f"{path}: {key}"
    check(key in content, place, "no such array", f"shape {shape}")
    values = np.asarray(content[key])
    check(values.dtype.kind in "fiub", place, f"{values.dtype}", "numbers")
    check(
        values.shape == shape,
        place,
        f"shape {values.shape}",
        f"shape {shape}: the {shape[-1]} people of {source}",
    )
    return values.astype(np.float64)
