"""How a teacher of another origin teaches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cdkd_ext.distillation.marginals import DEFAULT_CUT
from cdkd_ext.errors import check, check_option
from cdkd_ext.resampling import SMALLEST_CROP

TARGETS = ("marginals", "keypoints")
ASK = ("views", "people")


@dataclass(frozen=True)
class TeacherOptions:
    """How a network that is not of this package teaches; a checkpoint of this package has no use for them.

    Args:
        preset: the description of an ONNX file by name; None recognises it by its outputs. A YAML file needs none.
        ask: "views" asks about each view of a person, "people" once about each person's plain crop: its keypoints follow every
            view, so that new ones cost nothing. The targets are Gaussians then, and there are no feature maps.
        targets: "marginals" are the distributions that the teacher gives, "keypoints" are Gaussians around the places
            that it says (pseudo-labels). A network of keypoints has Gaussians in either case.
        cut: cells of a heatmap on either side of its peak that count; a map's mass far away is clutter. -1 keeps all.
        sharpen: power that the distributions are raised to; 2 halves a Gaussian's variance.
        height: pixels of the crops that the teacher sees: they are reduced to it and enlarged again, as `cdkd adapt` shows
            them. A network that was adapted to 32 tells a student of 32x32 crops how sure one can be of a joint from so few
            pixels. None is full resolution.
        sigma: standard deviation of a Gaussian around a keypoint, in bins of the student.
        widen: with the targets "marginals", by how much a keypoint of score 0 has a wider Gaussian than one of score 1:
            its standard deviation is sigma * (1 + widen * (1 - score)).
        flip: average with what the teacher says of the mirror image, which takes twice the time: it mixes up left and
            right less often.
        turns: ask about a crop turned by 90, 180 and 270 degrees, too, where the teacher's mean confidence is below 0.65,
            and take the position in which it is surest: networks know few people upside down or lying. Up to four times
            the time; for square inputs. Feature maps stay those of the upright crop.
        confidence: weight each joint by the teacher's confidence; without, all that it says counts in full.
        min_confidence: joints below it teach nothing.
        threads: of onnxruntime on a CPU; None leaves the choice to it.
    """

    preset: str | None = None
    ask: Literal["views", "people"] = "views"
    targets: Literal["marginals", "keypoints"] = "marginals"
    cut: int = DEFAULT_CUT
    sharpen: float = 1.0
    height: int | None = None
    sigma: float = 1.0
    widen: float = 1.0
    flip: bool = False
    turns: bool = False
    confidence: bool = True
    min_confidence: float = 0.0
    threads: int | None = None

    def validate(self, place: str = "teacher_options") -> None:
        """Check the numbers; `place` is what messages call these options.

        Raises:
            InputError: names the field.
        """
        check_option(f"{place}.ask", self.ask, ASK)
        check_option(f"{place}.targets", self.targets, TARGETS)
        check(self.cut >= -1, f"{place}.cut", self.cut, "a number of cells, or -1 for all")
        expected = f"at least {SMALLEST_CROP} pixels, or nothing for full resolution"
        check(self.height is None or self.height >= SMALLEST_CROP, f"{place}.height", self.height, expected)
        for name in ("sharpen", "sigma"):
            value = getattr(self, name)
            check(0 < value < math.inf, f"{place}.{name}", value, "a positive number")
        check(0 <= self.widen < math.inf, f"{place}.widen", self.widen, "zero or more")
        check(
            0 <= self.min_confidence <= 1,
            f"{place}.min_confidence",
            self.min_confidence,
            "a number in [0, 1]",
        )
