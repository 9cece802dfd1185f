"""Poses in images, videos, cameras and streams, one frame after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, check_option
from cdkd_ext.inference.ahead import read_ahead
from cdkd_ext.inference.person_boxes import FindPeople
from cdkd_ext.inference.poses import Poses
from cdkd_ext.inference.sources import Part, SourceFrame, open_source, read_frames
from cdkd_ext.inference.tracking import Tracker

Tracking = Literal["identities", "smooth", "none"]
TRACKING = ("identities", "smooth", "none")


class PredictsBoxes(Protocol):
    """A `Predictor`, as far as it matters here."""

    def __call__(self, image: Any, boxes: Any) -> Poses:
        """Predict the pose of the person in each box."""
        ...


@dataclass(frozen=True)
class FramePoses:
    """The people of a frame.

    Attributes:
        frame: the image and where it comes from; its `error` says why there is no image.
        part: what the frame is a part of.
        boxes: float64 (N, 4), (x, y, width, height) in pixels of the image.
        identities: int64 (N,), the same for a person in consecutive frames of a video; else 0 to N - 1.
        poses: keypoints, scores and the scores of the boxes.
    """

    frame: SourceFrame
    part: Part
    boxes: npt.NDArray[np.float64]
    identities: npt.NDArray[np.int64]
    poses: Poses


@dataclass
class Times:
    """Where the time goes, in seconds.

    Attributes:
        reading: waiting for frames, which a thread decodes in advance.
        boxes: finding people.
        poses: cutting crops and predicting.
    """

    reading: float = 0.0
    boxes: float = 0.0
    poses: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def total(self) -> float:
        """Seconds since the beginning, with all that was done between the frames."""
        return time.perf_counter() - self.started


def follow(
    predictor: PredictsBoxes,
    source: str | int | os.PathLike[str] | Sequence[Part],
    people: FindPeople,
    *,
    every: int = 1,
    frames: int | None = None,
    tracking: Tracking = "identities",
    times: Times | None = None,
) -> Generator[FramePoses, None, None]:
    """Predict frame by frame; nothing is read before it is asked for.

    Args:
        predictor: of the poses.
        source: see `sources.open_source`, or what that returned.
        people: says where the people are (`person_boxes.find_people`).
        every: take every n-th frame of a video, camera or stream.
        frames: stop after as many frames; None goes on to the end.
        tracking: in videos, "identities" by the overlap of boxes, "smooth" also smooths the keypoints, "none" takes each
            frame by itself.
        times: is told where the time goes.

    Raises:
        InputError: the source cannot be opened, or an option is out of range. Frames that cannot be read are no reason.
    """
    check_option("tracking", tracking, TRACKING)
    check(every > 0, "every", every, "a positive number")
    check(frames is None or frames > 0, "frames", frames, "a positive number, or nothing")
    parts = open_source(source) if isinstance(source, (str, int, os.PathLike)) else source
    known = isinstance(parts, Sequence) and all(isinstance(part, Part) for part in parts)
    check(known, "source", type(source).__name__, "a path, a camera's number or a stream's address")
    return _followed(predictor, parts, people, every, frames, tracking, times or Times())


def _followed(
    predictor: PredictsBoxes,
    parts: Sequence[Part],
    people: FindPeople,
    every: int,
    limit: int | None,
    tracking: str,
    times: Times,
) -> Generator[FramePoses, None, None]:
    done = 0
    for part in parts:
        tracker = None
        if part.kind != "image" and tracking != "none":
            tracker = Tracker(smooth=tracking == "smooth")
        before = time.perf_counter()
        # a video is decoded on another core
        with closing(read_ahead(read_frames(part, every=every))) as ahead:
            for frame in ahead:
                times.reading += time.perf_counter() - before
                yield _predicted(predictor, part, frame, people, tracker, times)
                done += 1
                if done == limit:
                    return
                before = time.perf_counter()


def _predicted(
    predictor: PredictsBoxes,
    part: Part,
    frame: SourceFrame,
    people: FindPeople,
    tracker: Tracker | None,
    times: Times,
) -> FramePoses:
    started = time.perf_counter()
    found = np.zeros((0, 5)) if frame.image is None else people(frame)
    boxed = time.perf_counter()
    blank = np.zeros((1, 1, 3), np.uint8)
    poses = predictor(blank if frame.image is None else frame.image, found)
    times.boxes += boxed - started
    times.poses += time.perf_counter() - boxed
    identities = np.arange(len(found))
    if tracker is not None and frame.image is not None:
        identities, keypoints = tracker(found[:, :4], poses.keypoints, frame.seconds)
        poses = type(poses)(keypoints, poses.scores, poses.box_scores)
    return FramePoses(frame, part, found[:, :4], identities, poses)
