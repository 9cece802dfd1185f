"""`cdkd predict`: it needs no torch for an exported ONNX file, and no extra but that of the model's kind."""

from __future__ import annotations

import re
import signal
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cdkd_ext.cli.parsing import CommandError, Parser, plain_parser
from cdkd_ext.detectors import DetectionOptions, Detector
from cdkd_ext.detectors.options import COLORS, LAYOUTS, PLACES, RANGES
from cdkd_ext.errors import check
from cdkd_ext.files import check_folder
from cdkd_ext.inference import Predictor
from cdkd_ext.inference.following import TRACKING, FramePoses, Times, follow
from cdkd_ext.inference.person_boxes import FindPeople, find_people
from cdkd_ext.inference.results import TABLE, ResultFiles
from cdkd_ext.inference.sources import Part, open_source
from cdkd_ext.onnx_file import is_cpu
from cdkd_ext.signals import signals_held

_SHOWN = 3
_SECONDS_BETWEEN_LINES = 0.2


def run(arguments: Sequence[str]) -> None:
    """Predict people in images, videos, cameras and streams, and write what was found."""
    options = _parser().parse_args(list(arguments))
    check_folder(Path(options.output))
    least = options.min_box_score
    if least is None:
        least = 0.0 if options.detector is None else DetectionOptions.min_score
    check(
        options.detector is None or 0 < least <= 1,
        "min_box_score",
        least,
        "a number above 0, up to 1, of a detector",
    )
    people = find_people(options.boxes, _detector(options, least), min_score=least)
    predictor = Predictor.load(
        options.model,
        flip_test=options.flip_test,
        padding=options.padding,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
    )
    summary = _predict(predictor, people, options)
    print(
        summary,
        f"{options.output} stays as it was" if summary.left else f"written to {options.output}",
        sep="\n",
    )
    left = getattr(people, "left", [])
    if left and options.frames is None and options.every == 1:
        shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
        print(f"{options.boxes} has boxes of {len(left)} images that did not come: {shown}")
    # Ctrl-C is how one ends a camera's or a stream's frames
    expected = summary.live and type(summary.ended) is KeyboardInterrupt
    if summary.ended is not None and not expected:
        raise summary.ended
    if summary.read_nothing:
        raise CommandError(f"source: expected a frame that can be read, got none in {options.source}", 1)


def _detector(options: Namespace, least: float) -> Detector | None:
    """The detector as its options say."""
    chosen = {
        name: value for name in _DETECTION if (value := getattr(options, f"detection.{name}")) is not None
    }
    if options.detector is None:
        check(
            not chosen, f"detection.{next(iter(chosen), '')}", "a value without a detector", "--detector FILE"
        )
        return None
    detection = DetectionOptions(min_score=least, **chosen)
    return Detector(options.detector, detection, threads=options.threads, cpu=is_cpu(options.device))


def _predict(predictor: Predictor, people: FindPeople, options: Namespace) -> _Summary:
    parts = _parts(options.source, Path(options.output).resolve())
    results = follow(
        predictor,
        parts,
        people,
        every=options.every,
        frames=options.frames,
        tracking=options.tracking,
        times=(times := Times()),
    )
    threshold = predictor.network.score_threshold
    drawn_from = threshold if options.min_joint_score is None else options.min_joint_score
    live = any(part.kind == "live" for part in parts)
    summary = _Summary(
        times, _count(parts, options.every, options.frames), drawn_from if options.draw else None, live
    )
    files = ResultFiles(
        Path(options.output),
        predictor.joints,
        parts,
        threshold=threshold,
        every=options.every,
        drawn_from=drawn_from if options.draw else None,
    )
    # a camera is let go before the files are finished
    with files.open() as written, closing(results):
        try:
            for result in results:
                # Ctrl-C leaves no frame half written
                with signals_held(signal.SIGINT, signal.SIGTERM):
                    written.add(result)
                    summary.add(result)
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, Exception) and not summary.frames:
                raise
            # what came is kept
            summary.ended = error
        finally:
            summary.clear()
        if summary.frames == len(summary.broken):
            # nothing takes no earlier call's place
            summary.left = written.keep_older()
    return summary


def _parts(source: str, output: Path) -> list[Part]:
    """What a source consists of, without what earlier calls drew into a folder below it."""
    parts = open_source(source)
    others = [
        part for part in parts if part.kind == "live" or output not in Path(part.name).resolve().parents
    ]
    # the source may be what lies in the output's folder; and what is below it somebody else's
    within = not others and Path(source).resolve() not in output.parents
    if within or not (output / TABLE).is_file():
        return parts
    check(others, "source", f"{source}, with nothing but what was drawn into {output}", "images or videos")
    return others


def _count(parts: Sequence[Part], every: int, limit: int | None) -> int | None:
    """How many frames will come, as far as is known."""
    counts = [part.frames for part in parts]
    known = [-(-count // every) for count in counts if count is not None]
    if len(known) < len(counts):
        return limit
    return sum(known) if limit is None else min(sum(known), limit)


def _parser() -> Parser:
    parser = plain_parser("predict")
    parser.add_argument(
        "model",
        help="the folder of a run, a checkpoint, an ONNX file of `cdkd export`, or an ONNX or YAML file that a teacher's "
        "description covers",
    )
    parser.add_argument(
        "source", help="an image, a video, a folder, a glob, a camera's number or a stream's address"
    )
    parser.add_argument("--output", default="predictions", help="folder of what is written")
    parser.add_argument("--detector", help="the ONNX file of a person detector")
    parser.add_argument(
        "--boxes",
        help="in place of a detector: `whole` where each frame shows one person; a file in COCO's results format or of "
        "lines image,x,y,w,h[,score]; or one of lines x,y,w,h, which are in every frame",
    )
    parser.add_argument(
        "--min_box_score",
        type=float,
        help=f"boxes with a smaller score are left out; a detector's below {DetectionOptions.min_score:g}, a file's none",
    )
    for name, (kind, text) in _DETECTION.items():
        parser.add_argument(f"--detection.{name}", type=kind, help=f"of the detector: {text}")
    parser.add_argument(
        "--min_joint_score",
        type=float,
        help="joints with a smaller score are not drawn; the network's own threshold",
    )
    parser.add_argument("--every", type=_positive, default=1, help="take every n-th frame of videos")
    parser.add_argument("--frames", type=_positive, help="stop after so many frames")
    parser.add_argument(
        "--tracking",
        choices=TRACKING,
        default="identities",
        help="in videos: identities by the boxes' overlap; smooth: with the keypoints smoothed; none: neither",
    )
    parser.add_argument(
        "--flip_test",
        type=_truth,
        help="average with the mirrored crop; without the option as an exported file does, else true",
    )
    parser.add_argument("--padding", type=float, help="how much larger than the box the crop is; as trained")
    parser.add_argument("--draw", type=_truth, default=True, help="write drawn images and videos")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--precision",
        help="of a run or checkpoint: auto, float32, bfloat16 or float16 computes in fused layers",
    )
    parser.add_argument("--threads", type=_positive, help="of onnxruntime on a CPU")
    return parser


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ArgumentTypeError(f"expected true or false, got {text}")
    return text.lower() == "true"


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*[\[(]\s*(\d+)\s*,\s*(\d+)\s*[\])]\s*", text)
    if found is None:
        raise ArgumentTypeError(f'expected a height and a width, such as "[640,640]", got {text}')
    return int(found[1]), int(found[2])


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"expected a positive integer, got {text}")
    return int(text)


# see `DetectionOptions`
_DETECTION: dict[str, tuple[Callable[[str], Any], str]] = {
    "tiles": (
        int,
        "of more than 1 it sees pieces as well, so many along the image's longer side, for people of few pixels",
    ),
    "overlap": (
        float,
        f"of two boxes that share more of their union the better one stays; {DetectionOptions.overlap:g}",
    ),
    "layout": (str, f"of its outputs: {', '.join(LAYOUTS)}"),
    "person": (int, "number of the class of people"),
    "size": (_size, 'of its input, such as "[640,640]"'),
    "range": (str, f"of its input: {', '.join(RANGES)}"),
    "colors": (str, f"of its input: {', '.join(COLORS)}"),
    "place": (str, f"of the image in its input: {', '.join(PLACES)}"),
    "border": (int, "grey value of the rest, 0 to 255"),
}


class _Summary:
    """Counts frames, people and what could not be read, and shows in a terminal how it goes.

    Attributes:
        live: whether the frames have no end of their own.
        frames: how many have been dealt with.
        broken: what is said of those that could not be read.
        ended: what ended them before it, if somebody did.
        left: whether an earlier call's files stay.
    """

    def __init__(self, times: Times, total: int | None, drawn_from: float | None, live: bool) -> None:
        self._times, self._total, self._drawn_from, self.live = times, total, drawn_from, live
        self.frames = self._people = self._drawn = 0
        self.broken: list[str] = []
        self._shown = 0.0
        self.ended: BaseException | None = None
        self.left = False

    def add(self, result: FramePoses) -> None:
        """Count a frame that has been dealt with."""
        self.frames += 1
        self._people += len(result.boxes)
        if self._drawn_from is not None:
            self._drawn += int((result.poses.scores >= self._drawn_from).any(1).sum())
        if result.frame.error is not None:
            self.broken.append(result.frame.error)
        if sys.stderr.isatty() and time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            self._show(self._line())

    @property
    def read_nothing(self) -> bool:
        """Whether no frame could be read, or none came where they have an end."""
        return self.frames == len(self.broken) and (self.frames > 0 or not self.live)

    def clear(self) -> None:
        """Show nothing any more."""
        if sys.stderr.isatty():
            self._show("")

    @staticmethod
    def _show(text: str) -> None:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()

    def _line(self) -> str:
        of = "" if self._total is None else f" of {self._total}"
        rate = self.frames / max(self._times.total, 1e-9)
        return f"{self.frames}{of} frames, {self._people} people, {rate:.1f} frames/s"

    def __str__(self) -> str:
        total = max(self._times.total, 1e-9)
        parts = {"reading": self._times.reading, "boxes": self._times.boxes, "poses": self._times.poses}
        shares = [f"{name} {100 * seconds / total:.0f} %" for name, seconds in parts.items()]
        rest = 100 * (total - sum(parts.values())) / total
        lines = [f"{self._line()} ({', '.join(shares)}, drawing and writing {rest:.0f} %)"]
        if self.broken:
            more = ", ..." if len(self.broken) > _SHOWN else ""
            names = "; ".join(self.broken[:_SHOWN])
            lines.append(f"could not read {len(self.broken)} ({names}{more})")
        if self._drawn_from is not None and 0 == self._drawn < self._people:
            least = f"--min_joint_score {self._drawn_from:g}"
            lines.append(
                f"no joint of the {self._people} people has a score of {least} or more, so nobody is drawn"
            )
        return "\n".join(lines)
