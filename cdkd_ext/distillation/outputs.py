"""What the distillation terms take from networks: a description to be built for, and a teacher's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from cdkd_ext.distillation.marginals import DEFAULT_CUT, cut_marginals, peaks
from cdkd_ext.errors import check
from cdkd_ext.joints import JointSet
from cdkd_ext.methods.heatmap import HeatmapOutput
from cdkd_ext.models import ModelSpec
from cdkd_ext.models.spec import DEFAULT_PADDING
from cdkd_ext.resampling import DEFAULT_RESAMPLE, Resample


class DescribedNetwork(Protocol):
    """A network whose outputs' sizes are known; `models.PoseNetwork` and `teachers.FrozenTeacher` are such."""

    @property
    def spec(self) -> ModelSpec:
        """The description: joints, head, sizes of crops and bins."""
        ...

    @property
    def feature_size(self) -> tuple[int, int]:
        """(h, w) of the last feature map."""
        ...


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """What is fixed about a teacher's outputs, whatever network they come from.

    Along an axis of n pixels with N bins, bin i stands for pixel ``bin_origin + i * n / N`` of the teacher's crop. Pixel
    centres are integers, and a crop n times as large has coordinates n times as large.

    Args:
        input_size: (height, width) of the teacher's crops in pixels.
        num_joints: J.
        joints: names and mirror pairs of the J joints, where they are known.
        num_bins: bins of the axes (x, y); None of a teacher without distributions.
        bin_origin: the coordinates (x, y) of bin 0 in pixels.
        feature_channels: channels of the feature map; 0 without one.
        feature_size: (h, w) of the feature map; (0, 0) without one.
        feature_mirrors: whether the feature map is one of each joint, so that it has a mirror image.
        padding: how much larger than a person's box the crop is.
        resample: how its crops are made of larger regions; see `cdkd_ext.data.warp_crop`.
        unbiased_crop: whether its crops are unbiased; see `cdkd_ext.data.crop_matrix`.

    Example:
        >>> from cdkd_ext.distillation import TeacherSpec
        >>> spec = TeacherSpec(input_size=(256, 256), num_joints=17, num_bins=(64, 64), bin_origin=(1.5, 1.5))
        >>> spec.offset((64, 64))  # 32 pixels, two bins each
        (0.375, 0.375)
    """

    input_size: tuple[int, int]
    num_joints: int
    joints: JointSet | None = None
    num_bins: tuple[int, int] | None = None
    bin_origin: tuple[float, float] = (0.0, 0.0)
    feature_channels: int = 0
    feature_size: tuple[int, int] = (0, 0)
    feature_mirrors: bool = False
    padding: float = DEFAULT_PADDING
    resample: Resample = DEFAULT_RESAMPLE
    unbiased_crop: bool = False

    @classmethod
    def of(cls, network: DescribedNetwork) -> TeacherSpec:
        """What is fixed about the outputs of a network of this package."""
        spec, method = network.spec, network.spec.method
        cells = network.feature_size[::-1] if method.has_heatmaps else None
        return cls(
            input_size=spec.input_size,
            num_joints=spec.num_joints,
            joints=spec.joints,
            num_bins=spec.num_bins if method.has_classes else cells,
            feature_channels=spec.feature_channels,
            feature_size=network.feature_size,
            feature_mirrors=not method.has_classes,
            padding=spec.padding,
            unbiased_crop=method.unbiased_crop,
            resample=spec.resample,
        )

    def offset(self, classes: tuple[int, int]) -> tuple[float, float]:
        """How far `ops.cca_kl` has to move its intervals, in teacher bins per axis, for these bins to meet a student's.

        With m = N_t / N_s and bin 0 at s student classes it is (m - 1) / 2 + s * m. The student's class 0 stands for
        pixel 0, and its classes are as wide as its crop over their number.

        Args:
            classes: the student's (x, y).

        Raises:
            InputError: the teacher has no bins.
        """
        check(self.num_bins is not None, "teacher", "no bins", "a teacher with distributions")
        assert self.num_bins is not None
        offsets = []
        # sizes are (height, width)
        for bins, own, origin, pixels in zip(
            self.num_bins, classes, self.bin_origin, self.input_size[::-1], strict=True
        ):
            ratio = bins / own
            offsets.append((ratio - 1) / 2 + origin * own / pixels * ratio)
        return offsets[0], offsets[1]


class TeacherOutput(NamedTuple):
    """What a teacher says about a batch of crops, from the network or the stored arrays to the losses.

    Attributes:
        feature: last feature map (B, C, H, W); of a heatmap network of this package the heatmaps; None without one.
        logits_x: (B, J, N_x), one class per horizontal bin; None without distributions. Of heatmaps, and of any network
            that is not of this package, they are the logarithms of a normalised distribution, in which -inf may stand.
        logits_y: (B, J, N_y), one class per vertical bin, as `logits_x`.
        confidence: (B, J) in [0, 1], how sure the teacher is of each joint, 0 where it says nothing; None where it is
            equally sure of all.
        keypoint_tokens: (B, J, width), of a teacher that is asked for its tokens: those in front of its last layers.
        visual_tokens: (B, N, width), of the same.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import TeacherOutput
        >>> TeacherOutput(torch.zeros(8, 17, 16, 16)).logits_x is None
        True
    """

    feature: Tensor | None = None
    logits_x: Tensor | None = None
    logits_y: Tensor | None = None
    confidence: Tensor | None = None
    keypoint_tokens: Tensor | None = None
    visual_tokens: Tensor | None = None

    @classmethod
    def of(cls, output: Any, *, tokens: bool = False) -> TeacherOutput:
        """What the output of a network of this package, of any method, teaches.

        Heatmaps teach their marginals along both axes, cut to the cells around the peak, and the peak's height is how sure
        they are of a joint.

        Args:
            output: of the network.
            tokens: with its tokens, which a network of the head tokenpose_b or tokenpose_l has.
        """
        if isinstance(output, HeatmapOutput):
            maps = output.heatmaps.float().clamp(min=0)
            highest = peaks(maps)
            x, y = cut_marginals(maps, highest, cut=DEFAULT_CUT)
            return cls(output.feature, x, y, highest.height.clamp(max=1))
        taught = cls(output.feature, getattr(output, "logits_x", None), getattr(output, "logits_y", None))
        if not tokens:
            return taught
        keypoints, visual = output.tokens
        return taught._replace(keypoint_tokens=keypoints, visual_tokens=visual)

    def to(self, device: torch.device | str) -> TeacherOutput:
        """The same on another device; copies nothing that is there already."""
        return TeacherOutput(
            *(None if value is None else value.to(device, non_blocking=True) for value in self)
        )

    def widened(self) -> TeacherOutput:
        """The same with 16-bit floats, as outputs are stored, in float32; other types stay."""
        halves = (torch.float16, torch.bfloat16)
        return TeacherOutput(
            *(value.float() if value is not None and value.dtype in halves else value for value in self)
        )
