"""Files of people's boxes for images without annotations."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cdkd_ext.data.json_object import JsonObject
from cdkd_ext.errors import check, fail

# x, y, width, height and score
ScoredBox = tuple[float, float, float, float, float]
_SHOWN = 3
_COCO_PERSON = 1
_LINE = "image,x,y,w,h or image,x,y,w,h,score"


def read_boxes(
    path: str | os.PathLike[str], *, category: int | str | None = None
) -> dict[str | int, list[ScoredBox]]:
    """Read boxes by image, in the order of the file.

    Args:
        path: JSON in COCO's results format (a list of ``image_id``, ``bbox`` and perhaps ``category_id`` and ``score``;
            ``file_name`` in place of ``image_id`` is read, too), or text with lines ``image,x,y,w,h[,score]``, with or
            without a heading.
        category: id of the people's category in a JSON file; None takes COCO's, 1.

    Returns:
        Boxes (x, y, width, height, score) by the image's id or name; boxes without area are left out.

    Raises:
        InputError: the file cannot be read, a line or a field is wrong, or a size is negative.
    """
    is_json = Path(path).suffix.lower() == ".json"
    found: dict[str | int, list[ScoredBox]] = {}
    for image, box in _json_boxes(path, category) if is_json else _text_boxes(path):
        expected = "a width and a height of at least 0: x, y, w, h and not two corners"
        check(min(box[2:4]) >= 0, f"{path}: image {image!r}", f"the box {box[:4]}", expected)
        if box[2] > 0 and box[3] > 0:
            found.setdefault(image, []).append(box)
    check(found, str(path), "none", "at least one box")
    return found


def _json_boxes(
    path: str | os.PathLike[str], category: int | str | None
) -> Iterable[tuple[str | int, ScoredBox]]:
    wanted = str(_COCO_PERSON if category is None else category)
    for row in JsonObject.read_list(path):
        if row.has("category_id"):
            own = row.identity("category_id")
            if isinstance(own, int) and not wanted.lstrip("-").isdecimal():
                expected = (
                    "the id of the people's category as data.category: a file of boxes does not know names"
                )
                fail(f"{path}: category_id", f"{own} beside {wanted}", expected)
            if str(own) != wanted:
                continue
        image = row.text("file_name") if row.has("file_name") else row.identity("image_id")
        x, y, width, height = row.numbers("bbox", 4)
        yield image, (x, y, width, height, row.number("score") if row.has("score") else 1.0)


def _text_boxes(path: str | os.PathLike[str]) -> Iterable[tuple[str | int, ScoredBox]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        fail(str(path), error.strerror or "an unreadable file", "a readable file of boxes")
    except (UnicodeDecodeError, csv.Error):
        fail(str(path), "something that is no text", f"JSON, or lines {_LINE}")
    for number, row in enumerate(rows, 1):
        heading = number == 1 and [value.strip().lower() for value in row[1:2]] == ["x"]
        if any(map(str.strip, row)) and not heading:
            yield _text_box(row, f"{path}: line {number}")


def _text_box(row: Sequence[str], place: str) -> tuple[str, ScoredBox]:
    check(len(row) in (5, 6), place, f"{len(row)} values", _LINE)
    try:
        numbers = [float(value) for value in row[1:]]
    except ValueError:
        numbers = [math.nan]
    check(all(abs(number) < 1e30 for number in numbers), place, ",".join(row), f"{_LINE} with finite numbers")
    x, y, width, height, score = numbers if len(numbers) == 5 else [*numbers, 1.0]
    return row[0].strip(), (x, y, width, height, score)


def match_boxes(
    boxes: dict[str | int, list[ScoredBox]], names: Sequence[Path], videos: Sequence[Path], source: str
) -> dict[Path, list[ScoredBox]]:
    """Give boxes to the images that they name.

    An image is named by its path or the end of it (``walk/0001.jpg``, ``0001.jpg``), by its name without suffix, or by
    the number in it (COCO's ids). Frames of videos that were not sampled are passed over.

    Args:
        boxes: of `read_boxes`.
        names: of the images.
        videos: whose frames may be named, as ``VIDEO/NUMBER.jpg``.
        source: the file of the boxes, for messages.

    Raises:
        InputError: a box names no image, or one of several.
    """
    known: dict[str | int, list[Path]] = {}
    for name in names:
        for key in _keys(name):
            known.setdefault(key, []).append(name)
    ends = {end for video in videos for end in _ends(video)}
    missing: list[str] = []
    matched: dict[Path, list[ScoredBox]] = {}
    for image, found in boxes.items():
        at = known.get(Path(image).as_posix() if isinstance(image, str) else image, [])
        check(len(at) < 2, f"{source}: image {image!r}", f"the name of {len(at)} images", "one image's name")
        if at:
            matched.setdefault(at[0], []).extend(found)
        elif not (isinstance(image, str) and Path(image).parent.as_posix() in ends):
            missing.append(repr(image))
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        fail(
            source,
            f"boxes of {len(missing)} that are not there: {shown}",
            "boxes of the images in data.images",
        )
    return matched


class BoxesByName:
    """Boxes of a file, given to images as they come: what `match_boxes` does where all names are known before.

    Args:
        boxes: of `read_boxes`.
        source: their file, for messages.
    """

    def __init__(self, boxes: dict[str | int, list[ScoredBox]], source: str) -> None:
        self._boxes: dict[str | int, list[ScoredBox]] = {}
        for image, found in boxes.items():
            # ./street/0001.jpg is street/0001.jpg
            key = Path(image).as_posix() if isinstance(image, str) else image
            self._boxes.setdefault(key, []).extend(found)
        self._source = source
        self._given: dict[str | int, Path] = {}

    def __call__(self, name: Path) -> list[ScoredBox]:
        """Return an image's boxes, none where the file has none.

        Raises:
            InputError: boxes of another image have been found under the same name.
        """
        key = next((key for key in _keys(name) if key in self._boxes), None)
        if key is None:
            return []
        first = self._given.setdefault(key, name)
        expected = "one image's name"
        check(first == name, f"{self._source}: image {key!r}", f"the name of {first} and {name}", expected)
        return self._boxes[key]

    @property
    def left(self) -> list[str]:
        """Images of the file that have not come."""
        return [str(image) for image in self._boxes if image not in self._given]


def _keys(name: Path) -> list[str | int]:
    """What an image may be called, the whole path first; each once."""
    numbers: list[str | int] = []
    if name.stem.isdecimal():
        numbers = [int(name.stem), str(int(name.stem))]
    return list(dict.fromkeys([*_ends(name), name.stem, *numbers]))


def _ends(path: Path) -> list[str]:
    """A path, and what it is called from each of the folders above it."""
    parts = path.parts
    return [Path(*parts[start:]).as_posix() for start in range(len(parts))]
