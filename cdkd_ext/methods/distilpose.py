"""DistilPose: coordinates from learned keypoint tokens, which a network of heatmaps teaches.

Ye et al., DistilPose: Tokenized Pose Regression with Heatmap Distillation, CVPR 2023. The tokens and layers are TokenPose-B's
(see `cdkd_ext.methods.tokenpose`); a linear layer reads from each keypoint token two coordinates, a score and two sigmas. A
TokenPose-B of the same resolution teaches the tokens, the scores and, against heatmaps that are drawn from coordinates
and sigmas, both of these. Without a teacher nothing trains scores and sigmas: poses are fine, but their order by score is not.

Differences from the published code: a drawn heatmap is compared with weights of its own person's joints (there every person's
difference is multiplied by the weights of all others), and is drawn in the cells of this package's TokenPose-B, whose crops
and maps have n - 1 cells from corner to corner; the flip test swaps left and right in scores, too, and mirrors
pixels (x becomes W - 1 - x, not 1 - x of the width, which is half a pixel off).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.errors import check
from cdkd_ext.methods.codec import CodecOptions
from cdkd_ext.methods.coordinates import CoordinateCodec, pair
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions, Teaching
from cdkd_ext.methods.tokens import KeypointTokens, TokenLayout, initialize_tokens
from cdkd_ext.tensor_checks import check_tensor, check_weights

# of TokenPose-B's patches, where its description does not say
_TEACHERS_SIDE = 4
# coordinates, score, sigmas
_NUMBERS = 5
# keeps a Gaussian of no width finite, as published
_SMALLEST = 1e-9


class _Said(NamedTuple):
    coordinates: Tensor
    scores: Tensor
    sigmas: Tensor


class DistilPoseOutput(_Said):
    """What a DistilPose network predicts for a batch of crops.

    Attributes:
        coordinates: (B, J, 2), x and y as shares of the crop's width and height, in [0, 1].
        scores: (B, J), trained towards the height of a teacher's heatmap; neither bounded nor a probability.
        sigmas: (B, J, 2), positive, of the Gaussian that a teacher's heatmap is compared with, in its cells.
        tokens: the keypoint tokens (B, J, 192) in front of the last layer and the visual tokens (B, N, 192).
    """

    tokens: tuple[Tensor, Tensor] | None = None

    @property
    def feature(self) -> None:
        """None: there is no map to compare."""
        return None


class DistilPoseHead(KeypointTokens):
    """Five numbers from each keypoint token.

    Args:
        layout: depth, heads and patches.
        channels: of the feature map.
        feature_size: (h, w) of the feature map.
        num_joints: J.

    Raises:
        InputError: the layout does not fit the map.
    """

    def __init__(
        self, layout: TokenLayout, channels: int, feature_size: tuple[int, int], num_joints: int
    ) -> None:
        super().__init__(layout, channels, feature_size, num_joints)
        self.mlp_head = nn.Sequential(nn.LayerNorm(layout.width), nn.Linear(layout.width, _NUMBERS))

    def forward(self, feature: Tensor) -> DistilPoseOutput:
        """What a feature map (B, C, h, w) says."""
        keypoint_tokens, visual_tokens = self.attend(feature)
        numbers = self.mlp_head(keypoint_tokens)
        sigmas = functional.softplus(numbers[..., 3:])
        output = DistilPoseOutput(numbers[..., :2].sigmoid(), numbers[..., 2], sigmas)
        output.tokens = (keypoint_tokens, visual_tokens)
        return output


class DistilPoseCodec(CoordinateCodec):
    """Coordinate c stands for pixel c · n; a joint outside the crop has no target."""

    inside_only = True

    def read(self, output: DistilPoseOutput) -> tuple[Tensor, Tensor]:
        """The coordinates and scores as they are."""
        dtype = torch.promote_types(output.coordinates.dtype, torch.float32)
        return output.coordinates.to(dtype), output.scores.to(dtype)


class DistilPoseLoss(LabelLoss):
    """Smooth L1 distance (β = 1) of the coordinates, mean over samples, joints and both coordinates.

    Coordinates are multiplied by the joint's weight before they are compared.

    Args:
        codec: makes the targets.
        scale: factor on the result.

    Example:
        >>> import torch
        >>> from cdkd_ext.methods.distilpose import DistilPoseCodec, DistilPoseLoss, DistilPoseOutput
        >>> student = DistilPoseOutput(torch.rand(2, 17, 2), torch.zeros(2, 17), torch.ones(2, 17, 2))
        >>> DistilPoseLoss(DistilPoseCodec((64, 64)))(student, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "distilpose"

    def __init__(self, codec: DistilPoseCodec, *, scale: float = 1.0) -> None:
        super().__init__()
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.codec = codec
        self.scale = float(scale)

    def forward(
        self, student: DistilPoseOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`."""
        check_tensor("student.coordinates", student.coordinates, ("B", "J", 2))
        batch, joints, _ = student.coordinates.shape
        check_tensor("keypoints", keypoints, (batch, joints, 2))
        check_weights("weights", weights, (batch, joints))
        targets, used = self.codec.targets(student, keypoints, weights)
        factor = used[..., None]
        found = student.coordinates.to(targets.dtype) * factor
        return functional.smooth_l1_loss(found, targets * factor) * self.scale

    def used(self, student: DistilPoseOutput, keypoints: Tensor, weights: Tensor) -> Tensor:
        """See `LabelLoss.used`: joints outside the crop are not."""
        return self.codec.targets(student, keypoints, weights)[1]

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.codec.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)


class HeatmapTeaching(Teaching):
    """What a TokenPose-B of the same tokens teaches: its tokens, and its heatmaps.

    Args:
        token_weight: of the mean squared difference of the keypoint tokens, and of that of the visual tokens.
        score_weight: of the mean distance of the scores from the teacher's heatmap at the predicted place.
        heatmap_weight: of the mean squared difference of the teacher's heatmap from the Gaussian that coordinates and sigmas
            draw.

    Raises:
        InputError: a weight is negative.

    Example:
        >>> import torch
        >>> from cdkd_ext import create_model
        >>> from cdkd_ext.distillation import TeacherOutput
        >>> from cdkd_ext.methods.distilpose import HeatmapTeaching
        >>> student, teacher = (
        ...     create_model("hrnet_w8_small", input_size=(64, 64), num_joints=17, head=head, depth=1).eval()
        ...     for head in ("distilpose", "tokenpose_b")
        ... )
        >>> crops = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        >>> taught = TeacherOutput.of(teacher(crops), tokens=True)
        >>> sorted(HeatmapTeaching()(student(crops), taught, torch.ones(1, 17)))
        ['heatmap', 'score', 'token']
    """

    def __init__(
        self, *, token_weight: float = 5e-4, score_weight: float = 0.01, heatmap_weight: float = 1.0
    ) -> None:
        super().__init__()
        weights = {
            "token_weight": token_weight,
            "score_weight": score_weight,
            "heatmap_weight": heatmap_weight,
        }
        for name, weight in weights.items():
            check(0 <= weight < float("inf"), name, weight, "zero or more")
        self.token_weight = float(token_weight)
        self.score_weight = float(score_weight)
        self.heatmap_weight = float(heatmap_weight)

    def forward(self, student: DistilPoseOutput, teacher: Any, weights: Tensor) -> dict[str, Tensor]:
        """The weighted terms "token", "score" and "heatmap", scalars.

        Args:
            student: with its tokens, as networks return it.
            teacher: with heatmaps (B, J, h, w) for its feature, and its tokens.
            weights: (B, J) factors on scores and heatmaps, 0 for joints that the teacher does not teach.

        Raises:
            InputError: a shape does not fit, or an output has no tokens.
        """
        check_tensor("student.coordinates", student.coordinates, ("B", "J", 2))
        batch, joints, _ = student.coordinates.shape
        check_tensor("teacher.feature", teacher.feature, (batch, joints, "h", "w"))
        check_weights("weights", weights, (batch, joints))
        check(student.tokens is not None, "student.tokens", None, "those of a network")
        assert student.tokens is not None
        distances = []
        for name, own in zip(("keypoint_tokens", "visual_tokens"), student.tokens, strict=True):
            taught = getattr(teacher, name)
            check(
                taught is not None, f"teacher.{name}", None, "those of a teacher that is asked for its tokens"
            )
            check_tensor(f"teacher.{name}", taught, tuple(own.shape))
            distances.append((own - taught.detach()).square().mean())
        # 16-bit floats hold neither a place to a fraction of a cell nor the square of a small sigma
        dtype = torch.promote_types(student.coordinates.dtype, torch.float32)
        taught_maps = teacher.feature.detach().to(dtype)
        return {
            "token": self.token_weight * (distances[0] + distances[1]),
            "score": self.score_weight * score_distance(student, taught_maps, weights),
            "heatmap": self.heatmap_weight * drawn_distance(student, taught_maps, weights),
        }

    def check_pair(self, student: MethodOptions, teacher: MethodOptions) -> None:
        """See `Teaching.check_pair`: a DistilPose and a TokenPose-B whose tokens are of the same patches."""
        heads, expected = (student.head, teacher.head), "a student 'distilpose' and a teacher 'tokenpose_b'"
        check(
            heads == ("distilpose", "tokenpose_b"),
            "teaching",
            "a HeatmapTeaching of {!r} and {!r}".format(*heads),
            expected,
        )
        size, own = teacher.input_size, student.input_size
        check(size == own, "teacher.input_size", size, f"the student's {own}, for tokens of the same patches")
        stride, own_stride = teacher.own_stem_stride, student.own_stem_stride
        check(stride == own_stride, "teacher.stem_stride", stride, f"{own_stride}, as the student's")
        patch, own_patch = teacher.patch or _TEACHERS_SIDE, _side(student)
        check(patch == own_patch, "teacher.patch", patch, f"{own_patch}, as the student's")


def score_distance(student: DistilPoseOutput, heatmaps: Tensor, weights: Tensor) -> Tensor:
    """Mean distance, times the weights, of the scores from the heatmaps at the cells nearest to the coordinates."""
    rows, columns = heatmaps.shape[2:]
    places = student.coordinates.detach().to(heatmaps.dtype) * pair(columns - 1, rows - 1, heatmaps)
    lost = places.isnan()
    x, y = torch.where(lost, 0, places).round().long().unbind(-1)
    # a sigmoid does not leave [0, 1]
    heights = heatmaps.flatten(2).gather(-1, (y * columns + x)[..., None])[..., 0]
    # NaN is no place, and no index either
    heights = torch.where(lost.any(-1), torch.nan, heights)
    return ((student.scores - heights) * weights).abs().mean()


def drawn_distance(student: DistilPoseOutput, heatmaps: Tensor, weights: Tensor) -> Tensor:
    """Mean squared difference, times the weights, of the heatmaps from Gaussians at the coordinates with the sigmas.

    A Gaussian whose three-sigma box misses the map does not count. Share c of an axis lies at cell c · (n - 1), as in the
    teacher's own targets.
    """
    rows, columns = heatmaps.shape[2:]
    size, last = pair(columns, rows, heatmaps), pair(columns - 1, rows - 1, heatmaps)
    middle, sigma = student.coordinates.to(heatmaps.dtype) * last, student.sigmas.to(heatmaps.dtype)
    low, high = (middle - 3 * sigma).detach(), (middle + 3 * sigma + 1).detach()
    used = weights * ((low < size) & (high >= 0)).all(-1)
    sides = []
    for axis, count in enumerate((columns, rows)):
        cells = torch.arange(count, dtype=heatmaps.dtype, device=heatmaps.device)
        squared = (cells - middle[..., axis, None]).square()
        sides.append(torch.exp(-0.5 * squared / (sigma[..., axis, None].square() + _SMALLEST)))
    drawn = sides[1][..., :, None] * sides[0][..., None, :]
    return ((drawn - heatmaps) * used[..., None, None]).square().mean()


class DistilPose(Method):
    """Coordinates from keypoint tokens; see `Method`.

    Attributes:
        layout: of which `depth`, `heads` and `patch` can be chosen otherwise; patches have 2 cells a side on maps of up to
            8 cells, 4 on larger ones.
    """

    layout: ClassVar[TokenLayout] = TokenLayout(depth=12)
    name = head = "distilpose"
    options = frozenset({"depth", "heads", "patch"})
    loss = DistilPoseLoss
    codec_type = DistilPoseCodec
    backbone_prefix = "backbone."
    head_prefix = "keypoint_head."
    published = ("hrnet_w32",)
    counter = "mmcv"

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The transformer, from the backbone's map to five numbers a joint."""
        side = _side(spec)
        layout = replace(
            self.layout,
            depth=spec.depth or self.layout.depth,
            heads=spec.heads or self.layout.heads,
            patch=(side, side),
        )
        return {"tokenhead": DistilPoseHead(layout, channels[0], size, spec.num_joints)}

    def initialize(self, layers: dict[str, nn.Module]) -> None:
        """Draw the tokens and the linear layers."""
        initialize_tokens(layers["tokenhead"])

    def read(self, network: Any, features: Tensor) -> DistilPoseOutput:
        """Coordinates, scores and sigmas."""
        output: DistilPoseOutput = network.tokenhead(features)
        return output

    def teaching(self, spec: MethodOptions, teacher: MethodOptions) -> HeatmapTeaching | None:
        """What a TokenPose-B of the same crops and patches teaches."""
        if teacher.head != "tokenpose_b":
            return None
        teaching = HeatmapTeaching()
        teaching.check_pair(spec, teacher)
        return teaching

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> DistilPoseCodec:
        """See `Method.codec`."""
        return DistilPoseCodec(spec.input_size)

    def label_loss(self, network: Any, options: LabelLossOptions) -> DistilPoseLoss:
        """The distance of the coordinates."""
        return DistilPoseLoss(DistilPoseCodec(network.spec.input_size), scale=options.scale)


def _side(spec: MethodOptions) -> int:
    """Cells on a side of a patch."""
    return spec.patch or (2 if min(spec.input_size) // spec.own_stem_stride <= 8 else 4)
