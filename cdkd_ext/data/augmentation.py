"""Random scale, rotation, flip and half-body crops of top-down pose estimation."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cdkd_ext.data.crops import CropRegion, fit_aspect
from cdkd_ext.errors import check, check_option

_HALF_BODY_PADDING = 1.5


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for every view of a person; the defaults are HRNet's for MPII.

    Args:
        scale: of the region's scale factor around 1. Normal: its standard deviation, clipped at one deviation; uniform: its
            largest deviation.
        rotation: in degrees around 0. Normal: standard deviation, clipped at two deviations; uniform: the largest angle.
        rotation_probability: how often there is a rotation at all.
        flip: probability of a mirrored crop.
        half_body: probability of a crop of the upper or the lower body alone.
        half_body_min_joints: half-body crops need more than this many annotated joints.
        distribution: of scale and rotation, "normal" (HRNet) or "uniform" (RLE).
    """

    scale: float = 0.25
    rotation: float = 30.0
    rotation_probability: float = 0.6
    flip: float = 0.5
    half_body: float = 0.0
    half_body_min_joints: int = 8
    distribution: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        check(0 <= self.scale < 1, "scale", self.scale, "a number in [0, 1)")
        check(0 <= self.rotation <= 180, "rotation", self.rotation, "degrees in [0, 180]")
        for name in ("rotation_probability", "flip", "half_body"):
            value = getattr(self, name)
            check(0 <= value <= 1, name, value, "a probability in [0, 1]")
        check(self.half_body_min_joints >= 0, "half_body_min_joints", self.half_body_min_joints, "a count")
        check_option("distribution", self.distribution, ("normal", "uniform"))

    def identity(self) -> dict[str, Any]:
        """What stored views of it depend on; an option that came later is told where it is not the default."""
        told = asdict(self)
        if self.distribution == "normal":
            del told["distribution"]
        return told

    def draw(
        self,
        rng: np.random.Generator,
        region: CropRegion,
        crop_size: tuple[int, int],
        keypoints: npt.NDArray[np.float32],
        annotated: npt.NDArray[np.float32],
        upper_body: npt.NDArray[np.bool_],
    ) -> CropRegion:
        """Return a randomly changed region.

        The generator always advances by the same number of draws, so switching one part off leaves the
        others as they were.

        Args:
            rng: source of all randomness.
            region: the whole person's region.
            crop_size: (height, width) of the crop, for its aspect ratio.
            keypoints: (J, 2) in image pixels.
            annotated: (J,), positive where a joint is annotated.
            upper_body: (J,), true for joints above the hips.
        """
        # upper or lower is a fair coin: HRNet compares a normal draw with 0.5, which favours the upper half
        half_body, upper, rotated, flipped = rng.random(4)
        scale, rotation = rng.standard_normal(2)
        if half_body < self.half_body:
            region = self._half_body(region, crop_size, keypoints, annotated > 0, upper_body, upper < 0.5)
        if self.distribution == "uniform":
            # what a normal draw's probability is of: uniform in (-1, 1)
            scale, rotation = math.erf(scale / math.sqrt(2)), math.erf(rotation / math.sqrt(2))
        factor = 1 + min(max(scale * self.scale, -self.scale), self.scale)
        angle = min(max(rotation * self.rotation, -2 * self.rotation), 2 * self.rotation)
        return replace(
            region,
            size=(region.size[0] * factor, region.size[1] * factor),
            rotation=angle if rotated < self.rotation_probability else 0.0,
            flip=bool(flipped < self.flip),
        )

    def _half_body(
        self,
        region: CropRegion,
        crop_size: tuple[int, int],
        keypoints: npt.NDArray[np.float32],
        annotated: npt.NDArray[np.bool_],
        upper_body: npt.NDArray[np.bool_],
        prefer_upper: bool,
    ) -> CropRegion:
        """Return the region around one half of the joints; the whole person's where that is not possible."""
        if annotated.sum() <= self.half_body_min_joints:
            return region
        halves = [annotated & upper_body, annotated & ~upper_body]
        if not prefer_upper:
            halves.reverse()
        for half in halves:
            if half.sum() <= 2:
                continue
            joints = keypoints[half].astype(np.float64)
            width, height = np.ptp(joints, axis=0)
            if math.hypot(width, height) < 1:
                continue
            x, y = joints.mean(axis=0)
            size = fit_aspect((float(height), float(width)), crop_size)
            return CropRegion(
                (float(x), float(y)), (size[0] * _HALF_BODY_PADDING, size[1] * _HALF_BODY_PADDING)
            )
        return region
