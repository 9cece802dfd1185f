"""How a detector's file is read, and which of its boxes are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cdkd_ext.errors import check, check_option

LAYOUTS = ("auto", "yolo", "yolo_objectness", "yolox", "rows", "boxes")
RANGES = ("auto", "0..1", "0..255", "imagenet")
COLORS = ("auto", "rgb", "bgr")
MOST_TILES = 64
PLACES = ("auto", "center", "corner")


@dataclass
class DetectionOptions:
    """What a detector's file does not say, and which boxes are kept.

    Args:
        min_score: boxes with a smaller score are left out.
        overlap: of two boxes whose intersection is a larger part of their union, the one with the smaller score is left
            out; 1 keeps both.
        layout: of the outputs: "yolo" (ultralytics v8, v11: box and classes in columns), "yolo_objectness" (v5, v7: rows
            with an objectness), "yolox" (the same, relative to the grid), "rows" (x1, y1, x2, y2, score, class: v10, v26 and
            exports with the suppression inside), "boxes" (boxes, scores and perhaps labels as outputs of their own: RTMDet,
            torchvision); "auto" recognises it.
        person: number of the class of people; None takes the one that the file calls person, else 1 for torchvision's
            (boxes without a batch axis) and 0 for others.
        size: (height, width) that images are fitted into; None takes the graph's, else what its metadata says, else 640.
        range: of the input: "0..1", "0..255", or "imagenet" (mean and deviation of ImageNet, as RTMDet has it); "auto"
            takes "imagenet" for a box of five numbers beside labels (RTMDet), "0..255" for YOLOX and for images with the
            channels last, "0..1" for others.
        colors: "rgb" or "bgr"; "auto" takes "bgr" for RTMDet and YOLOX.
        place: where in the input the image lies: in its "center", or in the top left "corner"; "auto" takes "corner" for
            RTMDet, YOLOX and torchvision.
        border: grey value of the rest, 0 to 255; None takes 114, black where the channels are last.
        tiles: of more than 1 the image is looked at in pieces as well, so many along its longer side and overlapping by a
            quarter: a person of 32 pixels in an image of 1920 has 7 in an input of 416, and in one of five pieces 28.
    """

    min_score: float = 0.35
    overlap: float = 0.6
    layout: Literal["auto", "yolo", "yolo_objectness", "yolox", "rows", "boxes"] = "auto"
    person: int | None = None
    size: tuple[int, int] | None = None
    range: Literal["auto", "0..1", "0..255", "imagenet"] = "auto"
    colors: Literal["auto", "rgb", "bgr"] = "auto"
    place: Literal["auto", "center", "corner"] = "auto"
    border: int | None = None
    tiles: int = 1

    def validate(self, name: str = "detection") -> None:
        """Check the values.

        Args:
            name: what messages call these options.

        Raises:
            InputError: names the field.
        """
        check(0 < self.min_score <= 1, f"{name}.min_score", self.min_score, "a number above 0, up to 1")
        check(0 < self.overlap <= 1, f"{name}.overlap", self.overlap, "a number above 0, up to 1")
        check_option(f"{name}.layout", self.layout, LAYOUTS)
        check_option(f"{name}.range", self.range, RANGES)
        check_option(f"{name}.colors", self.colors, COLORS)
        check_option(f"{name}.place", self.place, PLACES)
        check(
            self.person is None or self.person >= 0,
            f"{name}.person",
            self.person,
            "a class's number, or None",
        )
        size = self.size
        positive = size is None or (len(size) == 2 and min(size) > 0)
        check(positive, f"{name}.size", size, "(height, width), two positive integers, or None")
        check(1 <= self.tiles <= MOST_TILES, f"{name}.tiles", self.tiles, f"1 to {MOST_TILES}")
        both = self.tiles > 1 and self.overlap == 1
        check(not both, f"{name}.overlap", self.overlap, "less than 1 with tiles, which see a person twice")
        check(
            self.border is None or 0 <= self.border <= 255, f"{name}.border", self.border, "0 to 255, or None"
        )
