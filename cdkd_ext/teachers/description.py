"""What has to be known about somebody else's pose network: how crops go in, and what its outputs mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS, JointSet, named_joints
from cdkd_ext.methods.heatmaps import DECODINGS
from cdkd_ext.models.spec import DEFAULT_PADDING
from cdkd_ext.resampling import DEFAULT_RESAMPLE, RESAMPLINGS, Resample

# which outputs each kind has: those that it needs, and those that it may have
ROLES = {
    "heatmap": (("heatmap",), ("offset",)),
    "simcc": (("x", "y"), ()),
    "keypoints": (("keypoints",), ("scores",)),
}
_ANY_KIND = ("feature",)
_OPTIONS = {
    "kind": tuple(ROLES),
    "layout": ("NCHW", "NHWC", None),
    "output_layout": ("NCHW", "NHWC", None),
    "color_order": ("rgb", "bgr"),
    "values": ("probabilities", "logits", "gaussians"),
    "decoding": DECODINGS,
    "cells": ("center", "corner", "ends"),
    "offset_order": ("xy", "yx"),
    "coordinates": ("pixels", "unit"),
    "score_values": ("probabilities", "logits"),
    "confidence": ("auto", "peak", "mass", "none"),
    "resample": RESAMPLINGS,
}


@dataclass(frozen=True, kw_only=True)
class TeacherDescription:
    """A pose network of any origin as a teacher; its fields are those of a description's YAML file.

    Args:
        kind: "heatmap" is one map per joint, "simcc" two tensors of classes, "keypoints" coordinates.
        outputs: names of the network's outputs by what they are: ``heatmap`` and perhaps ``offset``; ``x`` and ``y`` of
            SimCC; ``keypoints`` and perhaps ``scores``; of any kind ``feature``, a feature map. Where a network has
            nothing else that would fit they may be left out.
        input: name of the network's input; None takes the only one.
        input_size: (height, width) of the crops in pixels; None reads it from the graph.
        layout: of the input, "NCHW" or "NHWC"; None reads it from the graph.
        range: what the pixel values 0 and 255 become, before `mean` and `std`.
        mean: of the channels in the network's order, in units of `range`.
        std: of the channels, as `mean`.
        color_order: of the input's channels, "rgb" or "bgr".
        output_layout: of heatmaps, offsets and features; None takes the one that fits the input's aspect ratio and joints.
        values: of heatmaps: "probabilities", "logits" (before a sigmoid), or "gaussians", which were regressed to a
            height of about 1 and may be negative.
        cells: what cell i stands for, of `stride` pixels each: its "center", pixel stride * (i + 1/2) - 1/2; its
            "corner", pixel stride * i, as in HRNet, SimCC and RTMPose; or "ends", where the first and the last cell
            stand for the first and the last pixel, as in UDP and ViTPose. Of keypoints: "center" where 0 is the left
            edge of the first pixel, "corner" where it is the first pixel's centre.
        decoding: how a heatmap without offsets becomes a keypoint between cells, "quarter" or "dark"; see
            `codecs.decode_heatmaps`.
        offset_order: of the two offsets of a joint, which are channels 2j and 2j + 1.
        offset_center: the offset in cells that leaves a keypoint where its cell is.
        columns: what the values of a keypoint are: "x", "y" and perhaps "score"; all other words are skipped.
        coordinates: of keypoints, "pixels" of the crop or "unit", 0 to 1.
        score_values: of keypoints, "probabilities" or "logits".
        logit_scale: factor on SimCC's values before the softmax; RTMPose trains with 10.
        confidence: how sure the teacher is of a joint: the height of its "peak", the "mass" of the distribution near
            it, or "none", which is equally sure of all; "auto" is "mass" of SimCC and "peak" of all others.
        joints: names of the joints, or "coco", "mpii" or a YAML file of a joint set; None takes those of COCO for 17
            and those of MPII for 16.
        ignored_joints: how many of the network's last joints are none of a body.
        padding: how much larger than a person's box the crop is.
        resample: how crops are made of larger regions, "area" or "linear"; see `cdkd_ext.data.warp_crop`.

    Raises:
        InputError: a field has a value that it cannot have.

    Example:
        >>> from cdkd_ext.teachers import TeacherDescription
        >>> TeacherDescription(kind="heatmap", range=(0, 255), joints="coco").values
        'probabilities'
    """

    kind: Literal["heatmap", "simcc", "keypoints"]
    outputs: Mapping[str, str] | None = None
    input: str | None = None
    input_size: tuple[int, int] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    color_order: Literal["rgb", "bgr"] = "rgb"
    output_layout: Literal["NCHW", "NHWC"] | None = None
    values: Literal["probabilities", "logits", "gaussians"] = "probabilities"
    cells: Literal["center", "corner", "ends"] = "center"
    decoding: Literal["quarter", "dark"] = "quarter"
    offset_order: Literal["xy", "yx"] = "xy"
    offset_center: float = 0.0
    columns: tuple[str, ...] = ("x", "y", "score")
    coordinates: Literal["pixels", "unit"] = "pixels"
    score_values: Literal["probabilities", "logits"] = "probabilities"
    logit_scale: float = 1.0
    confidence: Literal["auto", "peak", "mass", "none"] = "auto"
    joints: str | tuple[str, ...] | None = None
    ignored_joints: int = 0
    padding: float = DEFAULT_PADDING
    resample: Resample = DEFAULT_RESAMPLE

    def __post_init__(self) -> None:
        for name, options in _OPTIONS.items():
            check_option(name, getattr(self, name), options)
        for name, count in (("range", 2), ("mean", 3), ("std", 3)):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), count))
        check(self.range[0] != self.range[1], "range", list(self.range), "two different numbers")
        check(0 not in self.std, "std", list(self.std), "three numbers that are not 0")
        if self.input_size is not None:
            object.__setattr__(self, "input_size", _size(self.input_size))
        for name in ("padding", "logit_scale"):
            value = getattr(self, name)
            check(_is_number(value) and 0 < value < math.inf, name, value, "a positive number")
        check(_is_number(self.offset_center), "offset_center", self.offset_center, "a number")
        ignored = self.ignored_joints
        check(type(ignored) is int and ignored >= 0, "ignored_joints", ignored, "zero or more")
        object.__setattr__(self, "outputs", self._checked_outputs())
        object.__setattr__(self, "columns", _words("columns", self.columns))
        for word in ("x", "y") if self.kind == "keypoints" else ():
            check(self.columns.count(word) == 1, "columns", list(self.columns), f"one {word!r} among them")
        if not (self.joints is None or isinstance(self.joints, str)):
            object.__setattr__(self, "joints", _words("joints", self.joints))

    def _checked_outputs(self) -> dict[str, str]:
        outputs = {} if self.outputs is None else self.outputs
        needed, possible = ROLES[self.kind]
        expected = f"names by {', '.join((*needed, *possible, *_ANY_KIND))}"
        check(isinstance(outputs, Mapping), "outputs", outputs, expected)
        for role, name in outputs.items():
            check_option("outputs", role, (*needed, *possible, *_ANY_KIND))
            check(isinstance(name, str) and name, f"outputs.{role}", repr(name), "the name of an output")
        return dict(outputs)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> TeacherDescription:
        """Read what a YAML file holds.

        Args:
            values: the fields by name.
            source: the file, which messages name.

        Raises:
            InputError: a field is unknown, missing or has a value that it cannot have.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            check_option(f"{source}: field", name, known)
        check("kind" in values, f"{source}: kind", "nothing", f"one of {', '.join(ROLES)}")
        try:
            return cls(**values)
        except ValueError as error:
            raise type(error)(f"{source}: {error}") from error

    def joint_set(self, count: int) -> JointSet:
        """The joints of a network with a number of them, those left out that are none of a body.

        Raises:
            InputError: there are not as many names, or none and the number does not tell.
        """
        count -= self.ignored_joints
        joints = self._named(count)
        expected = f"the network's {count}" + (
            f", {self.ignored_joints} ignored ones left out" if self.ignored_joints else ""
        )
        check(len(joints) == count, "joints", f"{len(joints)} names", expected)
        return joints

    def _named(self, count: int) -> JointSet:
        if isinstance(self.joints, str):
            return named_joints(self.joints)
        if self.joints is not None:
            return JointSet.from_category({"keypoints": list(self.joints)}, "joints")
        by_count = {len(known): known for known in (COCO_JOINTS, MPII_JOINTS)}
        if count not in by_count:
            fail("joints", f"nothing for a network of {count}", "the names of the joints, in its order")
        return by_count[count]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    expected = f"a list of {count} finite numbers"
    good = isinstance(values, (list, tuple)) and len(values) == count and all(map(_is_number, values))
    check(good, name, values, expected)
    return tuple(float(value) for value in values)


def _size(value: Any) -> tuple[int, int]:
    good = isinstance(value, (list, tuple)) and len(value) == 2
    good = good and all(type(side) is int and side > 0 for side in value)
    check(good, "input_size", value, "two positive integers [height, width]")
    return value[0], value[1]


def _words(name: str, values: Any) -> tuple[str, ...]:
    good = isinstance(values, (list, tuple)) and all(isinstance(value, str) and value for value in values)
    check(good and len(values) > 0, name, values, "a list of words")
    return tuple(values)
