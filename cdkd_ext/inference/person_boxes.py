"""Where the people of a frame are."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cdkd_ext.data.box_file import BoxesByName, ScoredBox, read_boxes
from cdkd_ext.detectors import DetectionOptions, Detector
from cdkd_ext.errors import check
from cdkd_ext.inference.sources import SourceFrame

WHOLE = "whole"
_LONG = {"width": "w", "height": "h"}
# boxes (N, 5): x, y, width, height and score
FindPeople = Callable[[SourceFrame], npt.NDArray[np.float64]]


def find_people(
    boxes: str | os.PathLike[str] | None = None,
    detector: str | os.PathLike[str] | Detector | None = None,
    *,
    min_score: float = DetectionOptions.min_score,
    threads: int | None = None,
    cpu: bool = True,
) -> FindPeople:
    """Choose what says where the people of a frame are.

    Args:
        boxes: "whole" where each frame shows one person; a file of boxes by image (`cdkd_ext.data.read_boxes`); or one of
            lines ``x,y,w,h`` or, with these names as its heading, ``x,y,w,h,score``, which are in every frame.
        detector: or a person detector, or its ONNX file.
        min_score: boxes with a smaller score are left out.
        threads: of onnxruntime on a CPU; None leaves the choice to it.
        cpu: stay on the CPU where there is a GPU.

    Raises:
        InputError: both or neither are given, or a file cannot be read.
    """
    check(not math.isnan(min_score), "min_score", min_score, "a number")
    given = [name for name, value in (("boxes", boxes), ("detector", detector)) if value is not None]
    expected = (
        "one of them: a detector's ONNX file (--detector FILE), or a file of boxes or `whole` for whole images "
        "(--boxes FILE)"
    )
    check(len(given) == 1, "boxes and detector", "both" if given else "neither", expected)
    if detector is not None:
        return _Detected(detector, min_score, threads, cpu)
    assert boxes is not None
    if str(boxes) == WHOLE:
        return _whole
    unnamed = _unnamed_boxes(Path(boxes))
    if unnamed is not None:
        kept = _array([box for box in unnamed if box[4] >= min_score])
        return lambda frame: kept
    return _Named(BoxesByName(read_boxes(boxes), str(boxes)), min_score)


def _array(boxes: Sequence[ScoredBox]) -> npt.NDArray[np.float64]:
    return np.array(boxes, np.float64).reshape(-1, 5)


def _whole(frame: SourceFrame) -> npt.NDArray[np.float64]:
    assert frame.image is not None
    height, width = frame.image.shape[:2]
    return _array([(0.0, 0.0, float(width), float(height), 1.0)])


class _Detected:
    def __init__(
        self,
        detector: str | os.PathLike[str] | Detector,
        min_score: float,
        threads: int | None,
        cpu: bool,
    ) -> None:
        if not isinstance(detector, Detector):
            options = DetectionOptions(min_score=min_score)
            detector = Detector(detector, options, threads=threads, cpu=cpu)
        self._detector = detector

    def __call__(self, frame: SourceFrame) -> npt.NDArray[np.float64]:
        assert frame.image is not None
        boxes, scores = self._detector(frame.image)
        return np.concatenate([boxes, scores[:, None]], axis=1).astype(np.float64)


class _Named:
    def __init__(self, boxes: BoxesByName, min_score: float) -> None:
        self._boxes, self._min_score = boxes, min_score

    def __call__(self, frame: SourceFrame) -> npt.NDArray[np.float64]:
        return _array([box for box in self._boxes(frame.name) if box[4] >= self._min_score])

    @property
    def left(self) -> list[str]:
        """Images of the file that have not come."""
        return self._boxes.left


def _unnamed_boxes(path: Path) -> list[ScoredBox] | None:
    """Boxes of a text of numbers alone; None for every other file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [[value.strip() for value in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    rows = [row for row in rows if any(row)]
    heading = [_LONG.get(name, name) for name in map(str.lower, rows[0])] if rows else []
    scored = heading == ["x", "y", "w", "h", "score"]
    if scored or heading == ["x", "y", "w", "h"]:
        rows = rows[1:]
    if not rows or not all(len(row) == 4 + scored for row in rows):
        return None
    boxes: list[ScoredBox] = []
    for number, row in enumerate(rows, 1):
        try:
            x, y, width, height, score = map(float, row if scored else [*row, "1"])
        except ValueError:
            return None
        good = all(map(math.isfinite, (x, y, width, height, score))) and width > 0 and height > 0
        check(good, f"{path}: box {number}", ",".join(row), "finite x,y,w,h with positive w and h")
        boxes.append((x, y, width, height, score))
    return boxes
