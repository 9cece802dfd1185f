"""Images, videos, cameras and streams, one frame after the other."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cdkd_ext.data.frames import footage_files, is_image
from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.images import Image, read_image

_MOST_LOST = 30  # frames of a video in a row
_SECONDS_LOST = 3.0  # without a frame, after which a camera or a stream has ended
_SECONDS_BETWEEN_TRIES = 0.05
_USUAL_RATE = 25.0
# by channels: some cameras give gray
_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
_LIVE = "a camera's number or a stream's address"


@dataclass(frozen=True)
class SourceFrame:
    """A frame of a source.

    Attributes:
        source: the image or video file, ``camera-0``, or the stream's address.
        number: of the frame in its source, from 0.
        name: of the frame: the image's file, or ``VIDEO/000123.jpg``.
        seconds: since the source's beginning.
        image: RGB uint8 (H, W, 3); None where it could not be read.
        error: why it could not be read, in words.
    """

    source: str
    number: int
    name: Path
    seconds: float
    image: Image | None
    error: str | None = None


@dataclass(frozen=True)
class Part:
    """One image, video, camera or stream of a source.

    Attributes:
        name: the file, ``camera-0``, or the address, without a password.
        kind: "image", "video", or "live" for what has no end.
        frames: how many there are, as far as is known.
        rate: frames per second; 0 for an image.
        address: of what is live, as it was given: the camera's number, or the address.
    """

    name: str
    kind: str
    frames: int | None
    rate: float
    address: str | int = ""


def open_source(source: str | int | os.PathLike[str]) -> list[Part]:
    """Find what a source consists of.

    Args:
        source: an image, a video, a folder (with everything below), a glob, the number of a camera, or the address of a
            stream (``rtsp://…``).

    Raises:
        InputError: there is nothing of the kind, or it cannot be opened.
    """
    text = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
    if text.isdecimal() and not Path(text).exists():
        return [_live(f"camera-{text}", int(text))]
    if "://" in text:
        # whoever reads the results need not know the way in
        return [_live(re.sub(r"(?<=://)[^/]*@", "", text), text)]
    files = list(footage_files(text, "source"))
    check(files, "source", f"{text}, without any", "images or videos")
    parts = [_part(file) for file in files]
    # among many it is no reason to stop
    if len(parts) == 1 and parts[0].frames == 0:
        fail(text, "a broken file or an unknown format", "a video")
    return parts


def _part(file: Path) -> Part:
    if is_image(file):
        return Part(str(file), "image", 1, 0.0)
    with opened_video(str(file)) as capture:
        if capture is None:
            return Part(str(file), "video", 0, _USUAL_RATE)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        return Part(str(file), "video", count if count > 0 else None, _rate(capture))


def _live(name: str, address: str | int) -> Part:
    with opened_video(address) as capture:
        if capture is None:
            fail("source", f"{name}, which cannot be opened", _LIVE)
        return Part(name, "live", None, _rate(capture), address)


def _rate(capture: cv2.VideoCapture) -> float:
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if 0 < rate <= 1000 else _USUAL_RATE


@contextmanager
def opened_video(address: str | int) -> Iterator[cv2.VideoCapture | None]:
    """What reads a video; None where it cannot be opened, of which OpenCV then says nothing."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(address)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        yield capture if capture.isOpened() else None
    finally:
        capture.release()


def read_frames(part: Part, *, every: int = 1) -> Iterator[SourceFrame]:
    """Read the frames of a part of a source; those that cannot be read say why.

    Args:
        part: of `open_source`.
        every: take every n-th frame of a video, camera or stream.

    Raises:
        InputError: a camera or stream is gone before its first frame.
    """
    check(every > 0, "every", every, "a positive number")
    if part.kind == "image":
        yield _image_frame(Path(part.name))
    elif part.kind == "live":
        yield from _live_frames(part, every)
    else:
        yield from _video_frames(part, every)


def _live_frames(part: Part, every: int) -> Iterator[SourceFrame]:
    with opened_video(part.address) as capture:
        if capture is None:
            fail("source", f"{part.name}, which can be opened no more", _LIVE)
        came = False
        for frame in _captured_live(part, capture, every):
            came = came or frame.image is not None
            yield frame
        check(came, "source", f"{part.name}, which gives nothing", "a camera or a stream that gives frames")


def _video_frames(part: Part, every: int) -> Iterator[SourceFrame]:
    with opened_video(part.name) as capture:
        if capture is None:
            error = f"{part.name}: expected a video, got a broken file or an unknown format"
            yield SourceFrame(part.name, 0, Path(part.name), 0.0, None, error)
            return
        yield from _captured(part, capture, every)


def _image_frame(path: Path) -> SourceFrame:
    try:
        return SourceFrame(str(path), 0, path, 0.0, read_image(path, upright=True))
    except InputError as error:
        return SourceFrame(str(path), 0, path, 0.0, None, str(error))


def _captured(part: Part, capture: cv2.VideoCapture, every: int) -> Iterator[SourceFrame]:
    """The frames of a video."""
    number = lost = 0
    missed: list[int] = []  # since the last that came
    while lost < _MOST_LOST:
        if capture.grab():
            yield from (_lost(part, other) for other in missed if other % every == 0)
            missed.clear()
            if number % every == 0:
                image = _retrieved(capture)
                lost = lost + 1 if image is None else 0
                yield _lost(part, number) if image is None else _read(part, number, number / part.rate, image)
        # a video tells how many frames it has; behind a broken one there may be more
        elif part.frames is not None and number < part.frames:
            lost += 1
            missed.append(number)
        else:
            break
        number += 1
    if missed:
        # the number of frames is some formats' guess, from the length of what may be sound
        name = frame_name(part, missed[0])
        error = f"{part.name}: ended after {missed[0]} of about {part.frames} frames"
        yield SourceFrame(part.name, missed[0], name, missed[0] / part.rate, None, error)


def _captured_live(part: Part, capture: cv2.VideoCapture, every: int) -> Iterator[SourceFrame]:
    """The frames of a camera or a stream, which may fail for a moment."""
    started = last = time.monotonic()
    number = 0
    while time.monotonic() - last <= _SECONDS_LOST:
        if not capture.grab():
            time.sleep(_SECONDS_BETWEEN_TRIES)
            continue
        if number % every == 0:
            image = _retrieved(capture)
            if image is None:
                yield _lost(part, number)
            else:
                yield _read(part, number, time.monotonic() - started, image)
                # not before: whoever takes the frame may take his time
                last = time.monotonic()
        else:
            last = time.monotonic()
        number += 1


def _retrieved(capture: cv2.VideoCapture) -> Image | None:
    """The frame that was grabbed, RGB; None where it cannot be decoded."""
    read, pixels = capture.retrieve()
    if not read or pixels is None:
        return None
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return np.asarray(cv2.cvtColor(pixels, _TO_RGB[channels]), np.uint8)


def _read(part: Part, number: int, seconds: float, image: Image) -> SourceFrame:
    return SourceFrame(part.name, number, frame_name(part, number), seconds, image)


def _lost(part: Part, number: int) -> SourceFrame:
    name = frame_name(part, number)
    return SourceFrame(part.name, number, name, number / part.rate, None, f"{name}: cannot be decoded")


def frame_name(part: Part, number: int) -> Path:
    """What a frame of a video, camera or stream is called, in files of boxes too."""
    return Path(part.name.replace("://", "-")) / f"{number:06d}.jpg"
