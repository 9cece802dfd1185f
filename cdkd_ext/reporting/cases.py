"""People of a report, with what everybody says about them, as images and drawings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.data import PoseDataset, crop_matrix, region_from_box, transform_points, warp_crop
from cdkd_ext.images import Image, encode_image
from cdkd_ext.joint_sides import split_side
from cdkd_ext.joints import JointSet
from cdkd_ext.reporting.collect import Predicted, RunsOnPeople

Floats = npt.NDArray[np.floating[Any]]
_SIDE = 224  # pixels of the longer side


@dataclass(frozen=True)
class Limb:
    """A line of a skeleton.

    Attributes:
        points: x and y of both ends, in pixels of the case's image.
        side: "left", "right" or "middle".
    """

    points: tuple[float, float, float, float]
    side: str


@dataclass(frozen=True)
class Panel:
    """What one network, or the labels, say.

    Attributes:
        title: whose it is.
        key: "run-0", "teacher" or "labels".
        limbs: lines.
        dots: x, y and side of joints.
    """

    title: str
    key: str
    limbs: list[Limb]
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Case:
    """A person.

    Attributes:
        title: where the person is.
        note: how far the first run is from the labels, and how large the person is.
        size: (height, width) of the images.
        seen: what the first run sees, a data URI.
        image: the same part in the image's own resolution, a data URI.
        panels: of the runs, of the teacher, and of the labels.
    """

    title: str
    note: str
    size: tuple[int, int]
    seen: str
    image: str
    panels: list[Panel]


def chosen_cases(errors: Floats, count: int) -> dict[str, list[int]]:
    """People to look at: the worst first, the best first, and some of all kinds.

    Args:
        errors: (N,), NaN for people who are not measured.
        count: of each.
    """
    measured = [int(index) for index in np.argsort(errors, kind="stable") if np.isfinite(errors[index])]
    if not measured:
        return {}
    between = np.linspace(0, len(measured) - 1, min(count, len(measured)))
    return {
        "worst": measured[::-1][:count],
        "best": measured[:count],
        "spread": [measured[place] for place in sorted({int(value) for value in between})],
    }


def draw_case(found: RunsOnPeople, index: int, note: str) -> Case:
    """Cut a person out and draw what everybody says.

    Args:
        found: the networks and the people.
        index: of the person.
        note: about the person.
    """
    truth, first = found.truth, found.runs[0]
    person = truth.persons[index]
    dataset = PoseDataset(
        [person], truth.joints, size=first.input_size, padding=first.padding, resample=first.resample
    )
    seen = np.ascontiguousarray(dataset[0]["image"].permute(1, 2, 0).numpy())
    height, width = first.input_size
    scale = _SIDE / max(height, width)
    size = round(height * scale), round(width * scale)
    matrix = crop_matrix(region_from_box(person.box, first.input_size, first.padding), size)
    cut = warp_crop(dataset.image(0), matrix, size)
    keys = [f"run-{number}" for number in range(len(found.runs))] + ["teacher"] * (found.teacher is not None)
    panels = [
        _panel(predicted.name, key, _points(predicted, index, matrix), truth.joints)
        for predicted, key in zip(found.predicted, keys, strict=True)
    ]
    labels = np.where(person.annotated[:, None] > 0, transform_points(person.keypoints, matrix), np.nan)
    panels.append(_panel("labels", "labels", labels, truth.joints))
    title = f"{person.image_path.name}, person {person.annotation_id}"
    return Case(title, note, size, _data_uri(seen, ".png"), _data_uri(cut, ".jpg"), panels)


def _points(predicted: Predicted, index: int, matrix: Floats) -> Floats:
    """A network's keypoints in a crop, NaN for those that it is not sure of."""
    points = transform_points(predicted.keypoints[index], matrix)
    return np.where(predicted.scores[index][:, None] >= predicted.score_threshold, points, np.nan)


def _panel(title: str, key: str, points: Floats, joints: JointSet) -> Panel:
    known = np.asarray(np.isfinite(points).all(1))
    # pixel centres are integers here, and halves in SVG
    places = [(round(float(x) + 0.5, 1), round(float(y) + 0.5, 1)) for x, y in np.nan_to_num(points)]
    limbs = [
        Limb((*places[first], *places[second]), _side([joints.names[first], joints.names[second]]))
        for first, second in joints.edges
        if known[first] and known[second]
    ]
    dots = [
        (*place, _side([name]))
        for place, name, there in zip(places, joints.names, known, strict=True)
        if there
    ]
    return Panel(title, key, limbs, dots)


def _side(names: Sequence[str]) -> str:
    sides = {split_side(name)[0] for name in names}
    return "left" if "left" in sides else "right" if "right" in sides else "middle"


def _data_uri(image: Image, suffix: str) -> str:
    kind = {".png": "png", ".jpg": "jpeg"}[suffix]
    content = base64.b64encode(encode_image(image, suffix, jpeg_quality=82)).decode()
    return f"data:image/{kind};base64,{content}"
