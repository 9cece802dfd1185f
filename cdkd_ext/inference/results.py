"""Predictions as files: COCO results, a table, and drawn images and videos."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.data.frames import PREDICTIONS
from cdkd_ext.errors import InputError, check
from cdkd_ext.files import replacing
from cdkd_ext.images import Image, save_image
from cdkd_ext.inference.drawing import draw_poses
from cdkd_ext.inference.following import FramePoses
from cdkd_ext.inference.sources import Part, opened_video
from cdkd_ext.joints import JointSet

_RESULTS, TABLE = PREDICTIONS
COLUMNS = ("source", "frame", "person", "joint", "x", "y", "score")
_PERSON = 1  # COCO's category
_PIXELS_PER_WIDTH = 48  # of a person, for each pixel of a limb's width


def person_scores(
    scores: npt.NDArray[np.floating[Any]], box_scores: npt.NDArray[np.floating[Any]], threshold: float
) -> npt.NDArray[np.float64]:
    """The scores of people (N,), as COCO's code has them: the box's times the mean of the joints' above a threshold.

    Args:
        scores: (N, J), of the joints.
        box_scores: (N,), of the boxes.
        threshold: joints at or below it do not count.
    """
    counted = scores > threshold
    means = np.where(counted, scores, 0).sum(1) / np.maximum(counted.sum(1), 1)
    return np.asarray(means * box_scores, np.float64)


def draw_people(result: FramePoses, joints: JointSet, *, min_score: float, numbered: bool = False) -> Image:
    """Draw a frame's people on a copy of its image.

    Args:
        result: of a frame with an image.
        joints: names and edges.
        min_score: joints below it are left out.
        numbered: write the identities beside the boxes.
    """
    image = result.frame.image
    assert image is not None
    # as the image allows, and no more than the person does
    most = max(1, round(min(image.shape[:2]) / 240))
    widths = [
        min(most, int(max(width, height, 0) // _PIXELS_PER_WIDTH)) for _, _, width, height in result.boxes
    ]
    poses = result.poses
    canvas = draw_poses(image, poses.keypoints, joints, drawn=poses.scores >= min_score, thickness=widths)
    if numbered:
        for box, width, identity in zip(result.boxes, widths, result.identities, strict=True):
            _write_number(canvas, str(identity), (float(box[0]), float(box[1])), max(width, 0.7))
    return canvas


def _write_number(canvas: Image, text: str, place: tuple[float, float], size: float) -> None:
    """Write a number of 12 pixels times the size over a corner, which may lie anywhere, inside the image."""
    high, (height, width) = 12 * size, canvas.shape[:2]
    x, y = (
        round(min(max(value, least), max(most, least)))
        for value, least, most in ((place[0], 0, width - high), (place[1], high, height))
    )
    for line, color in ((round(3 * size), (20, 20, 20)), (max(round(size), 1), (255, 255, 255))):
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5 * size, color, line, cv2.LINE_AA)


class ResultFiles:
    """Writes predictions while they come; the files appear, whole, when the block of `open` ends.

    ``keypoints.json`` is in COCO's results format (an image's id is its number where its name is one and no other image's,
    else its name), ``keypoints.csv`` has a row per joint; a drawn image has its file's name, a drawn video its video's.

    Args:
        folder: receives the files.
        joints: of the network.
        parts: of the source.
        threshold: joints with a score at or below it do not count in the score of a person.
        every: of videos, cameras and streams every n-th frame comes.
        drawn_from: joints with a smaller score are not drawn; None draws nothing.

    Raises:
        InputError: drawn files would lie among the source's, or replace those of somebody else.
    """

    def __init__(
        self,
        folder: Path,
        joints: JointSet,
        parts: Sequence[Part],
        *,
        threshold: float,
        every: int,
        drawn_from: float | None,
    ) -> None:
        files = [Path(part.name) for part in parts if part.kind != "live"]
        if drawn_from is not None:
            # a file may be a link into another folder
            folders = {path for file in files for path in (file.resolve().parent, file.parent.resolve())}
            among = folder.resolve() in folders
            expected = "another folder than that of the source's files, which drawn ones would replace"
            check(not among, "output", folder, expected)
        self._folder, self._joints = folder, joints
        # an id has to be that of one image
        stems = (Path(part.name).stem for part in parts if part.kind == "image")
        counts = Counter(int(stem) for stem in stems if stem.isdecimal())
        self._numbers = {number for number, count in counts.items() if count == 1}
        self._threshold, self._every, self._drawn_from = threshold, every, drawn_from
        self._taken: dict[str, str] = {}
        self._video: _Video | None = None
        self._kept = False
        if drawn_from is not None and not (folder / TABLE).is_file():
            for part in parts:
                name = self._drawn_name(part)
                expected = "a folder without files that drawn ones would replace, or that of an earlier call"
                check(not (folder / name).exists(), "output", f"{folder} with {name}", expected)

    @contextmanager
    def open(self) -> Iterator[ResultFiles]:
        """Open the files.

        Raises:
            InputError: the folder cannot be written.
        """
        with suppress(_OlderStayError), ExitStack() as stack:
            texts = []
            for name in (_RESULTS, TABLE):
                temporary = stack.enter_context(replacing(self._folder / name))
                # names of files need not be text
                file = temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="")
                texts.append(stack.enter_context(file))
            self._json: TextIO = texts[0]
            self._table = csv.writer(texts[1], lineterminator="\n")
            self._table.writerow(COLUMNS)
            self._separator = "["
            try:
                yield self
            except BaseException as error:
                if self._video is not None:
                    self._video.discard(error)
                raise
            self._close_video()
            if self._kept:
                raise _OlderStayError
            self._json.write("]\n" if self._separator == "," else "[]\n")

    def keep_older(self) -> bool:
        """Leave the files of an earlier call as they are, and return whether there are any."""
        self._kept = (self._folder / TABLE).is_file()
        return self._kept

    def add(self, result: FramePoses) -> None:
        """Write a frame's people."""
        self._write_json(result)
        self._write_rows(result)
        if self._drawn_from is not None and result.frame.image is not None:
            self._write_image(result, self._drawn_from)

    def _write_json(self, result: FramePoses) -> None:
        poses = result.poses
        scores = person_scores(poses.scores, poses.box_scores, self._threshold)
        for person, score in enumerate(scores):
            points = np.concatenate([poses.keypoints[person], poses.scores[person][:, None]], axis=1)
            row = {
                "image_id": self._image_id(result),
                "category_id": _PERSON,
                "keypoints": [round(float(value), 4) for value in np.nan_to_num(points).ravel()],
                "score": round(float(np.nan_to_num(score)), 6),
                "bbox": [round(float(value), 2) for value in result.boxes[person]],
            }
            self._json.write(self._separator + json.dumps(row))
            self._separator = ","

    def _write_rows(self, result: FramePoses) -> None:
        poses = result.poses
        for person, identity in enumerate(result.identities):
            for joint, (x, y), score in zip(
                self._joints.names, poses.keypoints[person], poses.scores[person], strict=True
            ):
                values = (f"{x:.2f}", f"{y:.2f}", f"{score:.4f}")
                self._table.writerow((result.part.name, result.frame.number, identity, joint, *values))

    def _write_image(self, result: FramePoses, min_score: float) -> None:
        still = result.part.kind == "image"
        drawn = draw_people(result, self._joints, min_score=min_score, numbered=not still)
        if still:
            self._close_video()
            save_image(drawn, self._folder / self._drawn_name(result.part))
            return
        if self._video is None or self._video.part is not result.part:
            self._close_video()
            self._video = _Video(
                result.part, self._folder / self._drawn_name(result.part), self._every, drawn
            )
        self._video.add(drawn, result.frame.number)

    def _image_id(self, result: FramePoses) -> int | str:
        name = result.frame.name
        numbered = result.part.kind == "image" and name.stem.isdecimal()
        return int(name.stem) if numbered and int(name.stem) in self._numbers else name.as_posix()

    def _drawn_name(self, part: Part) -> str:
        """The name of the drawn file for a part of the source, which no other part has."""
        suffix = Path(part.name).suffix if part.kind == "image" else ".mp4"
        stem = re.sub(r"[^\w.-]+", "_", Path(part.name).stem) or "stream"
        name, number = f"{stem}{suffix}", 2
        while self._taken.setdefault(name, part.name) != part.name:
            name, number = f"{stem}-{number}{suffix}", number + 1
        return name

    def _close_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None


class _OlderStayError(Exception):
    """What ends the writing of files that are not to take the place of others."""


class _Video:
    """A video that is being written; its rate is that of its source, less the frames that are passed over."""

    def __init__(self, part: Part, path: Path, every: int, image: Image) -> None:
        self.part = part
        self._every = every
        self._size = (image.shape[1], image.shape[0])
        self._last: tuple[Image, int] | None = None
        self._stack = ExitStack()
        temporary = self._stack.enter_context(replacing(path))
        self._path, self._temporary = path, temporary
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(temporary), code, _mpeg4_rate(part.rate / every), self._size)
        try:
            opened = self._writer.isOpened()
            check(opened, str(path), "no codec for MP4", "an OpenCV that writes videos")
        except InputError as error:
            self.discard(error)
            raise

    def add(self, image: Image, number: int) -> None:
        """Append a frame; for frames that were lost before it the last one stays."""
        if self._last is not None:
            before, last = self._last
            for _ in range((number - last) // self._every - 1):
                self._write(before)
        self._write(image)
        self._last = image, number

    def _write(self, image: Image) -> None:
        if image.shape[1::-1] != self._size:
            image = np.asarray(cv2.resize(image, self._size), np.uint8)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def discard(self, error: BaseException) -> None:
        """Leave nothing of the video, for what ended it too early."""
        self._writer.release()
        self._stack.__exit__(type(error), error, error.__traceback__)

    def close(self) -> None:
        """End the video, which then appears.

        Raises:
            InputError: it cannot be played.
        """
        self._writer.release()
        try:
            # OpenCV does not say that a disk took no more
            with opened_video(str(self._temporary)) as written:
                whole = written is not None and written.grab()
            check(whole, str(self._path), "a video that cannot be played", "a disk that takes it")
        except InputError as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._stack.close()


def _mpeg4_rate(rate: float) -> float:
    """The nearest frames per second that MPEG-4 has: a fraction of numbers below 65,536, which OpenCV makes of decimals."""
    return max(round(rate, 2 if rate < 655 else 1), 0.01)
