"""The one description of a pose network: creation, files, configuration, prediction and the command line share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cdkd_ext.codecs import num_bins
from cdkd_ext.errors import check, check_option, check_type, fail
from cdkd_ext.joints import JointSet
from cdkd_ext.methods import Method, list_heads, method_for
from cdkd_ext.methods.heatmaps import DECODINGS
from cdkd_ext.resampling import DEFAULT_RESAMPLE, RESAMPLINGS, Resample

COLOR_ORDERS = ("rgb", "bgr")
DEFAULT_PADDING = 1.25
STEM_STRIDES = (4, 2, 1)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a user chooses about a pose network.

    Args:
        name: a name of `cdkd_ext.list_models()`.
        input_size: (height, width) of the crops in pixels, square or not; multiples of 32.
        head: the method: "simcc", or "heatmap" for one map per joint, of the input's resolution divided by the stem's
            stride.
        split_ratio: SimCC bins per pixel; an axis of n pixels has int(n * split_ratio) bins.
        channels_per_joint: feature maps per joint behind a SimCC head. The published upsample-free networks have 32,
            at 256x192 28.
        decoding: how heatmaps become keypoints: "quarter" is HRNet's quarter offset, "dark" DARK's Taylor step, whose
            training targets are not centred on cells either.
        color_order: what the first convolution expects. Images are always given as RGB; "bgr" is for the published
            ResNet weights (SimpleBaselines, SimCC), which were trained on OpenCV's order.
        stem_stride: 4, 2 or 1, by which the first layers divide the resolution; None is the network's own, 2 of the
            `lowres` networks and 4 of the others. The tensors of a backbone are the same with each.
        depth: layers of a method's transformer; None is what the method was published with.
        heads: attention heads of a method's transformer; None as for `depth`.
        patch: side in cells of the patches that a method's visual tokens are read from; None as for `depth`.
        offset_scale: cells that an offset of 1 stands for behind a CAL head.
    """

    name: str
    input_size: tuple[int, int]
    head: Literal[
        "simcc", "heatmap", "cal", "rle", "tokenpose_b", "tokenpose_l", "distilpose", "prtr", "pct"
    ] = "simcc"
    split_ratio: float = 3.0
    channels_per_joint: int = 1
    decoding: Literal["quarter", "dark"] = "quarter"
    color_order: Literal["rgb", "bgr"] = "rgb"
    stem_stride: Literal[4, 2, 1] | None = None
    depth: int | None = None
    heads: int | None = None
    patch: int | None = None
    offset_scale: float = 1.5

    @property
    def method(self) -> Method:
        """How the network represents keypoints."""
        return method_for(self.head, self.name)

    @property
    def own_stem_stride(self) -> int:
        """`stem_stride`, or what None stands for."""
        return self.stem_stride or (2 if self.name.startswith("lowres") else 4)

    def spec(
        self, joints: JointSet, padding: float = DEFAULT_PADDING, resample: Resample = DEFAULT_RESAMPLE
    ) -> ModelSpec:
        """Return the description of this network for a set of joints and for crops; see `ModelSpec`."""
        chosen = {field.name: getattr(self, field.name) for field in fields(ModelOptions)}
        return ModelSpec(**chosen, num_joints=len(joints), padding=padding, resample=resample, joints=joints)


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ModelOptions):
    """A pose network with the joints that it predicts and the crops that it expects.

    Args:
        name: see `ModelOptions`, as are the other options of the network.
        num_joints: J.
        padding: how much larger than a person's box the crop is, as in training.
        resample: how a crop is made of an image that has more pixels, as in training: "area" or "linear"; see
            `cdkd_ext.data.warp_crop`.
        joints: names and mirror pairs of the J joints, where they are known.

    Raises:
        InputError: an option is unknown, or a size, count or ratio is out of range; names the field.

    Example:
        >>> from cdkd_ext.models import ModelSpec
        >>> ModelSpec(name="hrnet_w32", input_size=(64, 64), num_joints=17).num_bins
        (192, 192)
    """

    num_joints: int
    padding: float = DEFAULT_PADDING
    resample: Resample = DEFAULT_RESAMPLE
    joints: JointSet | None = None

    def __post_init__(self) -> None:
        check_option("head", self.head, list_heads())
        check(_is_size(self.input_size), "input_size", repr(self.input_size), "two integers (height, width)")
        object.__setattr__(self, "input_size", tuple(self.input_size))
        height, width = self.input_size
        check(height > 0 and width > 0, "input_size", f"({height}, {width})", "positive multiples of 32")
        for name in ("num_joints", "channels_per_joint"):
            value = getattr(self, name)
            check(_is_integer(value) and value > 0, name, repr(value), "a positive integer")
        options = self.method.options
        check(
            self.channels_per_joint == 1 or "channels_per_joint" in options,
            "channels_per_joint",
            self.channels_per_joint,
            f"1 for a {self.head} head",
        )
        for name in ("depth", "heads", "patch"):
            value = getattr(self, name)
            if value is not None:
                check(
                    name in options, name, value, f"nothing for a {self.head} head, which has no such option"
                )
                check(_is_integer(value) and value > 0, name, repr(value), "a positive integer, or None")
        check_option("decoding", self.decoding, DECODINGS)
        check_option("color_order", self.color_order, COLOR_ORDERS)
        check_option("stem_stride", self.stem_stride, (*STEM_STRIDES, None))
        ratio = self.split_ratio
        check_type("split_ratio", ratio, (int, float), "a number")
        check(0 < ratio < float("inf"), "split_ratio", ratio, "a positive number of bins per pixel")
        check(
            int(min(height, width) * ratio) >= 2,
            "split_ratio",
            ratio,
            f"at least two bins on each axis of a ({height}, {width}) input",
        )
        object.__setattr__(self, "split_ratio", float(ratio))
        check_type("offset_scale", self.offset_scale, (int, float), "a number")
        check(
            0 < self.offset_scale < float("inf"),
            "offset_scale",
            self.offset_scale,
            "a positive number of cells",
        )
        check_type("padding", self.padding, (int, float), "a number")
        check(0 < self.padding < float("inf"), "padding", self.padding, "a positive number")
        check_option("resample", self.resample, RESAMPLINGS)
        if self.joints is not None:
            count = len(self.joints)
            check(count == self.num_joints, "joints", f"{count} joints", f"num_joints = {self.num_joints}")
        self.method.check(self)

    @property
    def num_bins(self) -> tuple[int, int]:
        """Bins of the SimCC axes (x, y)."""
        return num_bins(self.input_size, self.split_ratio)

    @property
    def feature_channels(self) -> int:
        """C, the channels of the output's feature map, 0 of an output without one."""
        return self.method.feature_channels(self)

    def misfit(self, other: ModelOptions) -> str | None:
        """The first option by which weights for `other` are no weights for this network; None if they are.

        How heatmaps are decoded is no matter of weights, nor are options that do not concern the network's method.
        """
        if self.name != other.name:
            return "name"
        if self.own_stem_stride != other.own_stem_stride:
            return "stem_stride"
        optional = {"split_ratio", "channels_per_joint", "depth", "heads", "patch", "offset_scale"}
        ignored = {"decoding", "stem_stride"} | (optional - self.method.options)
        names = [field.name for field in fields(ModelOptions) if field.name not in ignored]
        return next((name for name in names if getattr(self, name) != getattr(other, name)), None)

    def check_options(self, given: ModelOptions | None, source: str) -> None:
        """Check that the options of a network that were given, if any were, are those that its file says.

        Raises:
            InputError: names the first that is not.
        """
        name = None if given is None else self.misfit(given)
        if name is not None:
            expected = f"{getattr(self, name)} as {source} says, or no model options"
            fail(f"model.{name}", getattr(given, name), expected)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings that `from_dict` reads."""
        described = asdict(self) | {"input_size": list(self.input_size)}
        return described | {"joints": None if self.joints is None else self.joints.to_category()}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any], source: str = "model") -> ModelSpec:
        """Read what `to_dict` returned; `source` is what messages name.

        A description without `resample` is of a network that was trained on linear crops, which were all there were.

        Raises:
            InputError: a field is unknown, missing or out of range.
        """
        known = {field.name for field in fields(cls)}
        for name in described:
            check(name in known, f"{source}.{name}", "an unknown field", f"one of {', '.join(sorted(known))}")
        for name in ("name", "input_size", "num_joints"):
            check(name in described, f"{source}.{name}", "no such field", "the description of a network")
        values = {"resample": "linear", **described}
        if values.get("joints") is not None:
            values["joints"] = JointSet.from_category(values["joints"], f"{source}.joints")
        if isinstance(values["input_size"], list):
            values["input_size"] = tuple(values["input_size"])
        return cls(**values)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_integer, value))
