"""Boxes of people in the forms in which detectors and files give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, fail

_BOX = "(x, y, width, height), or these and the person's score"


def boxes_and_scores(boxes: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Return boxes (N, 4) as (x, y, width, height), and their scores (N,), 1 where they have none.

    Args:
        boxes: N boxes of four or five numbers (the fifth is the score), in any sequence, array or tensor; mappings with
            ``bbox`` and perhaps ``score``, as in COCO's files; or one such box.

    Raises:
        InputError: something else; a box that is not finite or empty is named by its index.
    """
    plain = _plain(boxes)
    if plain is not None:
        return plain
    rows = _rows(boxes)
    parsed = [_box(row, f"boxes[{i}]") for i, row in enumerate(rows)]
    return (
        np.array([box for box, _ in parsed], np.float64).reshape(-1, 4),
        np.array([score for _, score in parsed], np.float32),
    )


def _plain(boxes: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]] | None:
    """Right boxes of nothing but numbers, all at once; None for what has to be looked at one by one."""
    found = _numbers(boxes)
    if found is None or found.ndim != 2 or found.shape[1] not in (4, 5) or not len(found):
        return None
    if not (np.isfinite(found).all() and (found[:, 2:4] > 0).all()):
        return None
    scores = found[:, 4] if found.shape[1] == 5 else np.ones(len(found))
    return found[:, :4], scores.astype(np.float32)


def _rows(boxes: Any) -> list[Any]:
    boxes = _on_host(boxes)
    if isinstance(boxes, np.ndarray) and (boxes.ndim not in (1, 2)):
        fail("boxes", _described(boxes), f"a list of {_BOX}")
    if isinstance(boxes, Mapping):
        return [boxes]
    if not isinstance(boxes, Iterable) or isinstance(boxes, (str, bytes)):
        fail("boxes", _described(boxes), f"a list of {_BOX}")
    rows = list(boxes)
    one = bool(rows) and all(isinstance(value, (int, float, np.number)) for value in map(_on_host, rows))
    return [rows] if one else rows


def _box(row: Any, place: str) -> tuple[npt.NDArray[np.float64], float]:
    score: Any = None
    if isinstance(row, Mapping):
        check("bbox" in row, place, f"a mapping with {sorted(map(str, row))}", "the key 'bbox'")
        row, score = row["bbox"], row.get("score")
    values = _numbers(row)
    if values is None or values.shape not in ((4,), (5,)):
        fail(place, _described(row), _BOX)
    expected = "finite (x, y, width, height) with positive width and height"
    box = values[:4]
    check(np.isfinite(box).all() and (box[2:] > 0).all(), f"{place}, the box", box.tolist(), expected)
    if score is None:
        score = values[4] if len(values) == 5 else 1.0
    number = _numbers(score)
    if number is None or number.shape != () or not np.isfinite(number):
        fail(f"{place}, the score", score, "a finite number")
    return box, float(number)


def _numbers(values: Any) -> npt.NDArray[np.float64] | None:
    try:
        found = np.asarray(_on_host(values))
    except (TypeError, ValueError):
        return None
    return found.astype(np.float64) if found.dtype.kind in "iuf" else None


def _on_host(values: Any) -> Any:
    """Tensors as arrays, with numbers of types that numpy does not have in double precision."""
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def _described(values: Any) -> str:
    if hasattr(values, "shape"):
        return f"shape {tuple(values.shape)}"
    return f"{type(values).__name__} {values!r}"
