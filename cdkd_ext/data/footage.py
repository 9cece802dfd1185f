"""People of footage without annotations: where they are, so that a teacher can show a student what it sees there."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cdkd_ext.data.box_file import ScoredBox, match_boxes, read_boxes
from cdkd_ext.data.config import DataConfig
from cdkd_ext.data.frames import Frame, FrameList, Progress, list_frames, no_progress
from cdkd_ext.data.near_duplicates import BITS, NearDuplicates, difference_hash
from cdkd_ext.data.person import Person
from cdkd_ext.detectors import Detector
from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.files import known_digest, write_json
from cdkd_ext.images import Image, read_image
from cdkd_ext.joints import JointSet
from cdkd_ext.onnx_file import onnx_digest

_logger = logging.getLogger(__name__)
_PLACE = "{file}"  # in what is kept of a broken image, whose copy may lie elsewhere
_SHOWN = 3
_SECONDS_BETWEEN_SAVES = 30.0
WHOLE = "whole"


@dataclass
class Footage:
    """The people of some footage, and what was left out.

    Attributes:
        persons: at least one; none of their joints is annotated.
        images: how many images there are without near-duplicates and broken ones.
        duplicates: how many images look almost like an earlier one.
        broken: images and videos that could not be read, in words.
        duplicate_people: how many people look almost like an earlier one.
    """

    persons: list[Person]
    images: int
    duplicates: int
    broken: list[str] = field(default_factory=list)
    duplicate_people: int = 0

    def __str__(self) -> str:
        parts = [f"{len(self.persons)} people in {self.images} images"]
        if self.persons:
            low, middle, high = np.percentile([person.box[3] for person in self.persons], (10, 50, 90))
            parts[0] += f", boxes of {low:.0f} to {high:.0f} pixels' height ({middle:.0f} in the middle)"
        if self.duplicates:
            left = f"left out {self.duplicates} near-duplicates"
            most = self.duplicates > self.images
            parts.append(
                left + (" (data.near_duplicates -1 keeps all, where only small people move)" if most else "")
            )
        if self.duplicate_people:
            parts.append(f"left out {self.duplicate_people} people who look like an earlier one")
        if self.broken:
            more = ", ..." if len(self.broken) > _SHOWN else ""
            parts.append(f"could not read {len(self.broken)} ({', '.join(self.broken[:_SHOWN])}{more})")
        return "; ".join(parts)


def load_footage(
    config: DataConfig, folder: Path, joints: JointSet, *, progress: Progress = no_progress
) -> Footage:
    """Find the people in the footage of a configuration.

    Frames of videos are extracted into `folder` once; what has been seen in an image is kept there, too, so that a later
    call with the same detector and options runs it on new images alone.

    Args:
        config: `images` and all that concerns them.
        folder: of what is kept.
        joints: the joint set of the people.
        progress: called with each frame and image.

    Raises:
        InputError: there are no images or no people in them, a source, the detector or the file of boxes cannot be read,
            or boxes name images that are not there.
    """
    check_footage(config)
    detector = Detector(config.detector, config.detection) if config.detector else None
    given = _given_boxes(config)
    found = list_frames(
        config.images or [], folder, frames=config.frames, every=config.every, progress=progress
    )
    matched = _matched(config, given, found)
    seen = _Seen(_file_of_seen(config, folder), detector)
    try:
        footage = _people(config, found, seen, matched, joints, progress)
    finally:
        seen.save()
    if footage.broken:
        more = ", ..." if len(footage.broken) > _SHOWN else ""
        names = "; ".join(footage.broken[:_SHOWN])
        _logger.warning(
            "data.images: left out %d that cannot be read (%s%s)", len(footage.broken), names, more
        )
    if not footage.persons:
        fail("data.images", f"nobody: {footage}", "at least one person in the images")
    return footage


def footage_folder(config: DataConfig, output: Path) -> Path:
    """Where a run with this output folder keeps frames of videos, and what a detector found."""
    return (Path(config.cache) if config.cache else output) / "footage"


def check_footage(config: DataConfig) -> None:
    """Check what can be checked of the options without reading a file.

    Raises:
        InputError: names the option.
    """
    check(config.images, "data.images", "nothing", "a folder, a glob, images or videos")
    got = {"data.detector": config.detector, "data.image_boxes": config.image_boxes}
    chosen = [name for name, value in got.items() if value]
    expected = "one of them: a detector's ONNX file, or a file of boxes or `whole` for whole images"
    check(len(chosen) == 1, " and ".join(got), "both" if chosen else "neither", expected)
    scored = config.boxes or config.image_boxes not in (None, WHOLE)
    score, expected = config.min_box_score, "0 without a file of boxes (a detector has data.detection)"
    check(scored or score == 0, "data.min_box_score", score, expected)
    config.detection.validate("data.detection")
    check(config.frames > 0, "data.frames", config.frames, "a positive number")
    check(config.every >= 0, "data.every", config.every, "zero or more")
    for name in ("near_duplicates", "near_duplicate_people"):
        distance = getattr(config, name)
        check(distance <= BITS, f"data.{name}", distance, f"at most {BITS} bits")


def _given_boxes(config: DataConfig) -> dict[str | int, list[ScoredBox]] | None:
    if not config.image_boxes or config.image_boxes == WHOLE:
        return None
    return read_boxes(config.image_boxes, category=config.category)


def _matched(
    config: DataConfig, given: dict[str | int, list[ScoredBox]] | None, found: FrameList
) -> dict[Path, list[ScoredBox]] | None:
    if given is None:
        return None
    names = [frame.name for frame in found.frames]
    return match_boxes(given, names, found.videos, str(config.image_boxes))


def _file_of_seen(config: DataConfig, folder: Path) -> Path:
    """Where to keep what was seen: a file for each detector with its options."""
    if not config.detector:
        return folder / "images.json"
    # an option that came later and is not used leaves what was found before it
    used = {name: value for name, value in asdict(config.detection).items() if (name, value) != ("tiles", 1)}
    asked = json.dumps(used, sort_keys=True)
    digest = hashlib.sha256(f"{onnx_digest(config.detector)} {asked}".encode()).hexdigest()
    return folder / f"boxes-{digest[:12]}.json"


def _people(
    config: DataConfig,
    found: FrameList,
    seen: _Seen,
    matched: dict[Path, list[ScoredBox]] | None,
    joints: JointSet,
    progress: Progress,
) -> Footage:
    known = NearDuplicates(config.near_duplicates)
    known_people = NearDuplicates(config.near_duplicate_people)
    footage = Footage([], 0, 0, list(found.unreadable))
    for done, frame in enumerate(found.frames):
        progress("looking through images", done + 1, len(found.frames))
        look = seen.at(frame.path)
        if look.broken:
            footage.broken.append(look.broken.replace(_PLACE, str(frame.path)))
        elif not known.add(look.bits()):
            footage.duplicates += 1
        else:
            footage.images += 1
            if matched is not None:
                boxes = [box for box in matched.get(frame.name, []) if box[4] >= config.min_box_score]
            else:
                boxes = seen.boxes(frame.path, look)
            for i, box in enumerate(boxes):
                if config.near_duplicate_people >= 0 and not known_people.add(
                    seen.person(frame.path, look, box)
                ):
                    footage.duplicate_people += 1
                else:
                    footage.persons.append(_person(frame, i, box, joints))
    return footage


def _person(frame: Frame, index: int, box: ScoredBox, joints: JointSet) -> Person:
    x, y, width, height, score = box
    return Person(
        image_path=frame.path,
        image_id=str(frame.name),
        annotation_id=index,
        box=np.array([x, y, width, height], np.float32),
        keypoints=np.zeros((len(joints), 2), np.float32),
        annotated=np.zeros(len(joints), np.float32),
        area=width * height,
        head_size=math.nan,
        score=score,
        upright=True,
    )


@dataclass
class _Look:
    """What was seen in an image; kept as JSON."""

    size: tuple[int, int] = (0, 0)
    hash: str = ""
    broken: str = ""
    boxes: list[ScoredBox] | None = None
    people: dict[str, str] = field(default_factory=dict)

    def bits(self) -> npt.NDArray[np.uint8]:
        """The perceptual hash."""
        return np.frombuffer(bytes.fromhex(self.hash), np.uint8)


class _Seen:
    """What was seen in images, kept in a file from which a later call goes on.

    Args:
        path: the file.
        detector: finds the people; None takes whole images.
    """

    def __init__(self, path: Path, detector: Detector | None) -> None:
        self._path, self._detector = path, detector
        self._looks = self._held()
        self._changed, self._saved = False, time.monotonic()
        # of the image that was read last
        self._image: tuple[Path, Image] | None = None

    def at(self, path: Path) -> _Look:
        """Size and hash of an image, or why it cannot be read."""
        try:
            key = self._key(path)
        except InputError as error:
            # another time it may be there
            return _Look(broken=str(error).replace(str(path), _PLACE))
        if key in self._looks:
            return self._looks[key]
        look = _Look()
        try:
            image = self._read(path)
        except InputError as error:
            look.broken = str(error).replace(str(path), _PLACE)
        else:
            look.size = image.shape[0], image.shape[1]
            look.hash = difference_hash(image).tobytes().hex()
        return self._keep(key, look)

    def boxes(self, path: Path, look: _Look) -> list[ScoredBox]:
        """People in an image that `at` could read."""
        if self._detector is None:
            return [(0.0, 0.0, float(look.size[1]), float(look.size[0]), 1.0)]
        if look.boxes is None:
            boxes, scores = self._detector(self._read(path))
            look.boxes = [
                (x, y, width, height, score)
                for (x, y, width, height), score in zip(boxes.tolist(), scores.tolist(), strict=True)
            ]
            self._keep(self._key(path), look)
        return look.boxes

    def person(self, path: Path, look: _Look, box: ScoredBox) -> npt.NDArray[np.uint8]:
        """The perceptual hash of what a box shows of an image that `at` could read."""
        key = ",".join(f"{value:.1f}" for value in box[:4])
        if key not in look.people:
            look.people[key] = difference_hash(_within(self._read(path), box)).tobytes().hex()
            self._keep(self._key(path), look)
        return np.frombuffer(bytes.fromhex(look.people[key]), np.uint8)

    def save(self) -> None:
        """Write what is new."""
        if self._changed:
            # another run may have written what it saw meanwhile
            for name, other in self._held().items():
                own = self._looks.setdefault(name, other)
                own.people = {**other.people, **own.people}
                own.boxes = other.boxes if own.boxes is None else own.boxes
            write_json({name: asdict(look) for name, look in self._looks.items()}, self._path, indent=None)
            self._changed, self._saved = False, time.monotonic()

    def _held(self) -> dict[str, _Look]:
        """What the file has."""
        try:
            content = json.loads(self._path.read_text()) if self._path.exists() else {}
            return {name: _Look(**look) for name, look in content.items()}
        except (ValueError, TypeError, AttributeError):
            _logger.warning("%s is damaged and is written anew", self._path)
            return {}

    @staticmethod
    def _key(path: Path) -> str:
        """The content of an image, whose looks are those of every copy."""
        try:
            return known_digest(path)
        except OSError as error:
            fail(str(path), error.strerror or "an unreadable file", "an image")

    def _keep(self, key: str, look: _Look) -> _Look:
        self._looks[key] = look
        self._changed = True
        if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
            self.save()
        return look

    def _read(self, path: Path) -> Image:
        if self._image is None or self._image[0] != path:
            self._image = path, read_image(path, upright=True)
        return self._image[1]


def _within(image: Image, box: ScoredBox) -> Image:
    """The part of an image that lies in a box, at least a pixel."""
    (height, width), (x, y, wide, high) = image.shape[:2], box[:4]
    left, top = (min(max(round(at), 0), size - 1) for at, size in ((x, width), (y, height)))
    right, bottom = max(round(x + wide), left + 1), max(round(y + high), top + 1)
    return image[top:bottom, left:right]
