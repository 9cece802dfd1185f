"""Footage as image files: pictures of folders and globs, and frames of videos, extracted once."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.files import content_digest, write_json
from cdkd_ext.images import save_image

_logger = logging.getLogger(__name__)
_IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_VIDEOS = frozenset(
    {".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
_MANIFEST = "frames.json"
# what `cdkd predict` writes beside the pictures that it draws
PREDICTIONS = ("keypoints.json", "keypoints.csv")
_STEM = 100  # bytes of a video's name that name its folder
# what is done, how much of it, and of how many (0 where that is unknown)
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Frame:
    """An image of the footage.

    Attributes:
        path: its file.
        name: what messages and files of boxes call it: the file itself, or ``VIDEO/NUMBER.jpg`` for a frame of a video,
            counted from 0 with six digits.
    """

    path: Path
    name: Path


@dataclass
class FrameList:
    """The images of some footage.

    Attributes:
        frames: in the order of the sources.
        videos: the videos among the sources.
        unreadable: what could not be read, in words.
    """

    frames: list[Frame] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def list_frames(
    images: str | Sequence[str],
    folder: Path,
    *,
    frames: int = 200,
    every: int = 0,
    progress: Progress = no_progress,
) -> FrameList:
    """Find images, and extract the frames of videos where that has not been done.

    Args:
        images: files, folders (with everything below) and globs of images and videos.
        folder: receives a folder of JPEG files per video.
        frames: of each video, evenly over its length.
        every: take every n-th frame of each video instead; 0 goes by `frames`.
        progress: called with each sampled frame.

    Raises:
        InputError: a source does not exist, is neither an image nor a video, or holds none; a video given by its name
            cannot be read.
    """
    found = FrameList()
    known: set[Path] = set()
    for source in [images] if isinstance(images, str) else images:
        files = list(footage_files(source))
        check(files, "data.images", f"{source}, without any", "images or videos")
        for file in files:
            if file in known:
                continue
            known.add(file)
            if is_image(file):
                found.frames.append(Frame(file, file))
                continue
            try:
                video = extract_frames(file, folder, frames=frames, every=every, progress=progress)
            except InputError as error:
                # among many it is no reason to stop
                if len(files) == 1:
                    raise
                found.unreadable.append(str(error))
                continue
            found.videos.append(file)
            found.frames += [Frame(path, file / path.name) for path in video.paths]
            if video.lost:
                found.unreadable.append(f"{file}: {video.lost} of {len(video.paths) + video.lost} frames")
    return found


def footage_files(source: str, argument: str = "data.images") -> Iterator[Path]:
    """Find the images and videos of a file, a folder (with everything below) or a glob, sorted.

    Of folders below a folder those that `cdkd predict` wrote are left out, with a line that says so.

    Args:
        source: the file, folder or glob.
        argument: what messages call it.

    Raises:
        InputError: it does not exist, or is a file of another kind.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_footage(file) and not _is_hidden(file, path))
        drawn = {folder for folder in {file.parent for file in files} - {path} if _is_predicted(folder)}
        for folder in sorted(drawn):
            _logger.warning("%s: left out what `cdkd predict` drew into %s", argument, folder)
        yield from (file for file in files if file.parent not in drawn)
    elif path.exists():
        expected = f"a folder, a glob, an image or a video ({', '.join(sorted(_IMAGES | _VIDEOS))})"
        check(_is_footage(path), argument, source, expected)
        yield path
    else:
        # brackets in the name of a folder that is there are no pattern
        folder = next((parent for parent in path.parents if parent.is_dir()), Path())
        literal = f"{glob.escape(str(folder))}/{path.relative_to(folder)}"
        found = sorted(map(Path, glob.glob(source, recursive=True) or glob.glob(literal, recursive=True)))
        check(found, argument, f"{source}, which does not exist", "a folder, a glob, an image or a video")
        yield from (file for file in found if _is_footage(file))


def is_image(file: Path) -> bool:
    """Whether a file's suffix is an image's."""
    return file.suffix.lower() in _IMAGES


def _is_footage(file: Path) -> bool:
    return file.suffix.lower() in _IMAGES | _VIDEOS and file.is_file()


def _is_predicted(folder: Path) -> bool:
    return all((folder / name).is_file() for name in PREDICTIONS)


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


@dataclass(frozen=True)
class VideoFrames:
    """Frames of a video as files.

    Attributes:
        paths: JPEG files, named by the frames' numbers.
        lost: how many could not be read.
    """

    paths: list[Path]
    lost: int


def extract_frames(
    video: Path, folder: Path, *, frames: int = 200, every: int = 0, progress: Progress = no_progress
) -> VideoFrames:
    """Write frames of a video as JPEG files of quality 95, or find them where they were written before.

    Each file appears whole, and a manifest when all have: a call that was interrupted is gone on with.

    Args:
        video: the file.
        folder: receives a folder whose name holds a fingerprint of the video and of what is sampled.
        frames: evenly over its length.
        every: take every n-th frame instead; 0 goes by `frames`.
        progress: called with each sampled frame.

    Raises:
        InputError: the video cannot be read, or an option is out of range.
    """
    check(every >= 0, "data.every", every, "zero or more")
    check(frames > 0, "data.frames", frames, "a positive number")
    # names of files have at most 255 bytes
    stem = os.fsdecode(os.fsencode(video.stem)[:_STEM])
    target = folder / f"{stem}-{_fingerprint(video, frames, every)}"
    manifest = target / _MANIFEST
    if not _is_whole(manifest):
        numbers, lost = _write_frames(video, target, frames, every, progress)
        if not numbers:
            fail(str(video), "no frame that could be read", "a video")
        write_json({"video": str(video), "frames": numbers, "lost": lost}, manifest, indent=None)
    content = json.loads(manifest.read_text())
    return VideoFrames([_frame_file(target, number) for number in content["frames"]], content["lost"])


def _is_whole(manifest: Path) -> bool:
    """Whether all frames of a manifest are there."""
    if not manifest.exists():
        return False
    numbers = json.loads(manifest.read_text())["frames"]
    return all(_frame_file(manifest.parent, number).exists() for number in numbers)


def _fingerprint(video: Path, frames: int, every: int) -> str:
    identity = [content_digest(video), 0 if every else frames, every]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]


def _frame_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.jpg"


def _write_frames(
    video: Path, target: Path, frames: int, every: int, progress: Progress
) -> tuple[list[int], int]:
    """Write the sampled frames that are not there yet; return their numbers, and how many could not be read."""
    wanted = sampled(_count_frames(video), frames, every)
    written: list[int] = []
    capture = cv2.VideoCapture(str(video))
    try:
        position = 0
        for done, number in enumerate(wanted):
            # going through all frames meets each exactly; seeking does not, in many formats
            while position <= number and capture.grab():
                position += 1
            if position <= number:
                break
            file = _frame_file(target, number)
            if not file.exists():
                read, image = capture.retrieve()
                if not read or image is None:
                    continue
                save_image(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), file)
            written.append(number)
            progress(f"frames of {video.name}", done + 1, len(wanted))
    finally:
        capture.release()
    return written, len(wanted) - len(written)


def _count_frames(video: Path) -> int:
    capture = cv2.VideoCapture(str(video))
    try:
        check(capture.isOpened(), str(video), "a broken file or an unknown format", "a video")
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if count > 0:
            return count
        # streams without an index do not say
        count = 0
        while capture.grab():
            count += 1
        return count
    finally:
        capture.release()


def sampled(count: int, frames: int, every: int) -> list[int]:
    """The numbers of the frames to take of `count`: every n-th, or the middles of as many equal parts as `frames`."""
    if every:
        return list(range(0, count, every))
    return sorted({(2 * part + 1) * count // (2 * frames) for part in range(frames)} if count else set())
