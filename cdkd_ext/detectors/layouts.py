"""The outputs of detectors, and how boxes of people are read from them.

Every reader returns the corners x1, y1, x2, y2 of its candidates in pixels of the input and their scores as people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.onnx_file import TensorInfo

Array = npt.NDArray[np.float32]
Candidates = tuple[Array, Array]

_STRIDES = (8, 16, 32)
_COCO_CLASSES = 80
# of the pose files of ultralytics: a box, one class and 17 joints of three numbers; with objectness or class number one more
_POSE_VALUES = (56, 57)
_MOST_ROWS = 1000
_KNOWN = (
    "boxes of a detector: (1, 4 + classes, n), (1, n, 5 + classes) or (1, n, 6), or boxes with scores (and labels); "
    "a layout where these could be mixed up"
)


@dataclass(frozen=True)
class Outputs:
    """Which outputs of a graph hold what.

    Attributes:
        layout: one of `options.LAYOUTS` other than "auto".
        boxes: name of the output with the boxes, alone or with all else.
        scores: name of the output with the scores, if there is one.
        labels: name of the output with the classes' numbers, if there is one.
        batched: whether the boxes have a batch axis.
        scored: whether the boxes of "boxes" carry their score as a fifth number.
    """

    layout: str
    boxes: str
    scores: str | None = None
    labels: str | None = None
    batched: bool = True
    scored: bool = False


def grid_cells(size: tuple[int, int]) -> int:
    """Number of cells of the three grids (strides 8, 16 and 32) of an input of (height, width)."""
    return sum((size[0] // stride) * (size[1] // stride) for stride in _STRIDES)


def recognise(path: str, outputs: Mapping[str, TensorInfo], size: tuple[int, int], layout: str) -> Outputs:
    """Tell which output holds what.

    Args:
        path: of the file, for messages.
        outputs: the graph's, by name.
        size: (height, width) of its input.
        layout: the layout that the user chose, or "auto".

    Raises:
        InputError: the outputs are none of a detector, or their sizes leave several layouts.
    """
    infos = list(outputs.values())
    if {"logits", "pred_boxes"} <= outputs.keys():
        got = "logits and pred_boxes, of a DETR: the boxes are shares of the image, and the logits no scores yet"
        fail(path, got, "a graph that ends in scores and boxes in pixels of its input")
    boxes = _box_outputs(infos)
    if layout == "boxes" or (layout == "auto" and boxes is not None):
        if boxes is None:
            _refuse(path, infos)
        return boxes
    # exports of YOLOv5 also have the three grids as outputs of five axes
    rows = [info for info in infos if len(info.shape) == 3]
    if len(rows) != 1 or not np.issubdtype(rows[0].dtype, np.floating):
        _refuse(path, infos)
    if layout == "auto":
        layout = _layout_of_rows(path, rows[0], size)
    return Outputs(layout, rows[0].name)


def _box_outputs(infos: list[TensorInfo]) -> Outputs | None:
    """The outputs of the layout "boxes", if they are."""
    floats = [info for info in infos if np.issubdtype(info.dtype, np.floating)]
    whole = [info for info in infos if np.issubdtype(info.dtype, np.integer)]
    boxes = [info for info in floats if len(info.shape) in (2, 3) and info.shape[-1] in (4, 5)]
    if not boxes:
        return None
    # scores of four or five boxes have the same shapes
    box = max(boxes, key=lambda info: ("box" in info.name.lower(), len(info.shape), info.shape[-1] == 4))
    batched = len(box.shape) == 3
    # one number for each box
    labels = [info for info in whole if len(info.shape) == len(box.shape) - 1]
    label = labels[0].name if labels else None
    if box.shape[-1] == 5:
        return None if label is None else Outputs("boxes", box.name, None, label, batched, True)
    scores = [info for info in floats if info is not box and len(info.shape) - len(box.shape) in (-1, 0)]
    if len(scores) > 1:
        scores = [info for info in scores if "score" in info.name.lower()]
    return Outputs("boxes", box.name, scores[0].name, label, batched) if len(scores) == 1 else None


def _layout_of_rows(path: str, info: TensorInfo, size: tuple[int, int]) -> str:
    """The layout of one output of three axes."""
    _, middle, last = info.shape
    cells = grid_cells(size)
    if last == cells and middle is not None and middle > 4:
        _refuse_pose(path, info, middle)
        return "yolo"
    if middle in (cells, 3 * cells) and last is not None and last > 5:
        _refuse_pose(path, info, last)
        return "yolox" if middle == cells else "yolo_objectness"
    if last == 6 and (middle is None or middle <= _MOST_ROWS):
        return "rows"
    # where the graph leaves the number of cells open, COCO's classes still tell
    if middle == 4 + _COCO_CLASSES and last is None:
        return "yolo"
    got = f"{info}, with {cells} cells in an input of {size[0]}x{size[1]}"
    fail(path, got, _KNOWN)


def _refuse_pose(path: str, info: TensorInfo, values: int) -> None:
    if values in _POSE_VALUES:
        fail(
            path, f"{info}, {values} values as a pose network has them", "a detector of boxes, or its layout"
        )


def _refuse(path: str, infos: list[TensorInfo]) -> NoReturn:
    fail(path, "the outputs " + ", ".join(map(str, infos)), _KNOWN)


def candidates(
    outputs: Outputs, results: Mapping[str, npt.NDArray[Any]], size: tuple[int, int], person: int
) -> Candidates:
    """Read the candidates of one image.

    Args:
        outputs: of `recognise`.
        results: what the graph returned, by name.
        size: (height, width) of the input.
        person: number of the class of people.

    Returns:
        Corners (N, 4) float32 in pixels of the input, and scores (N,) float32.

    Raises:
        InputError: the outputs are not of the layout.
    """
    try:
        return _read(outputs, results, size, person)
    except InputError:
        raise
    except (ValueError, IndexError):
        shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in results.items())
        fail("detection.layout", f"{outputs.layout} for the outputs {shapes}", "the layout of these outputs")


def _read(
    outputs: Outputs, results: Mapping[str, npt.NDArray[Any]], size: tuple[int, int], person: int
) -> Candidates:
    boxes = np.asarray(results[outputs.boxes], np.float32)
    if outputs.batched:
        boxes = boxes[0]
    if outputs.layout == "boxes":
        return _separate(outputs, boxes, results, person)
    if outputs.layout == "rows":
        people = boxes[:, 5].round() == person
        return boxes[people, :4], boxes[people, 4]
    if outputs.layout == "yolo":
        boxes = boxes.T
        return _corners(boxes[:, :4]), _of_class(boxes[:, 4:], person)
    if outputs.layout == "yolox":
        boxes = np.concatenate([_on_grid(boxes[:, :4], size), boxes[:, 4:]], axis=1)
    return _corners(boxes[:, :4]), boxes[:, 4] * _of_class(boxes[:, 5:], person)


def _separate(
    outputs: Outputs, boxes: Array, results: Mapping[str, npt.NDArray[Any]], person: int
) -> Candidates:
    first = (lambda values: values[0]) if outputs.batched else (lambda values: values)
    scores = boxes[:, 4] if outputs.scores is None else np.asarray(first(results[outputs.scores]), np.float32)
    if scores.ndim == 2:
        # one score per class, in either order
        scores = _of_class(scores if len(scores) == len(boxes) else scores.T, person)
    # nothing but noughts is how some graphs say that nobody is there
    shares = boxes.size > 0 and 0 < np.abs(boxes[:, :4]).max() <= 1
    check(
        not shares,
        f"{outputs.boxes} of the detector",
        "boxes in shares of the image",
        "boxes in pixels of its input",
    )
    if outputs.labels is None:
        return boxes[:, :4], scores
    people = first(results[outputs.labels]) == person
    return boxes[people, :4], scores[people]


def _of_class(scores: Array, person: int) -> Array:
    """One column of (N, classes) scores."""
    count = scores.shape[1]
    check(person < count, "detection.person", person, f"the number of one of {count} classes")
    return scores[:, person]


def _corners(boxes: Array) -> Array:
    """(N, 4) centre x, y, width, height to corners."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _on_grid(boxes: Array, size: tuple[int, int]) -> Array:
    """YOLOX's boxes, offsets from cells and logarithms of sizes in strides, as centre and size in pixels."""
    grids = []
    for stride in _STRIDES:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        grids.append(np.column_stack([x.ravel(), y.ravel(), np.full(x.size, stride)]))
    cells = np.concatenate(grids).astype(np.float32)
    strides = cells[:, 2:]
    return np.concatenate([(boxes[:, :2] + cells[:, :2]) * strides, np.exp(boxes[:, 2:]) * strides], axis=1)
