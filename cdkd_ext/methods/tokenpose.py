"""TokenPose: heatmaps from learned keypoint tokens that attend to the patches of a map.

Li et al., TokenPose: Learning Keypoint Tokens for Human Pose Estimation, ICCV 2021. Crops, targets and decoding are those
of DARK's release: the corner pixels' centres lie on the edges of a crop's region, and so do those of a map's corner
cells. TokenPose-B and -L are of the compared systems at low resolution, on a whole HRNet; the published networks for 256
pixels end at stage 3. The release's own low-resolution TokenPose-B cannot be run (its stage 4 has no transition).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cdkd_ext.errors import check
from cdkd_ext.methods.codec import Codec, CodecOptions
from cdkd_ext.methods.heatmaps import check_sigma, decode_heatmaps, heatmap_sigma, heatmap_targets
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.methods.tokens import KeypointTokens, TokenLayout, initialize_tokens
from cdkd_ext.tensor_checks import check_tensor, check_weights

# DARK's for 64 cells, which the release of the compared systems left for 8 and 16, too
_BLUR = 11
# hidden channels of TokenPose-L's head at every size
_HIDDEN_L = 384


class _Maps(NamedTuple):
    heatmaps: Tensor


class TokenPoseOutput(_Maps):
    """What a TokenPose network predicts for a batch of crops.

    Attributes:
        heatmaps: one map per joint, (B, J, h, w), trained towards a Gaussian of height 1.
        tokens: the keypoint tokens (B, J, width) in front of the last layers and the visual tokens (B, N, 192).
    """

    tokens: tuple[Tensor, Tensor] | None = None

    @property
    def feature(self) -> Tensor:
        """The maps that feature distillation compares: the heatmaps."""
        return self.heatmaps


class TokenPoseHead(KeypointTokens):
    """Heatmaps from keypoint tokens.

    A hidden layer of an eighth of the map's cells lies in front of the last one where it has at least twice as many
    channels as a token: in TokenPose-B at 256x192, and at no size in TokenPose-L.

    Args:
        layout: depth, heads, patches and stacks.
        channels: of the feature map.
        feature_size: (h, w) of the feature map, and of the heatmaps.
        num_joints: J.

    Raises:
        InputError: the layout does not fit the map.
    """

    def __init__(
        self, layout: TokenLayout, channels: int, feature_size: tuple[int, int], num_joints: int
    ) -> None:
        super().__init__(layout, channels, feature_size, num_joints)
        self.feature_size = feature_size
        width, cells = layout.stacks * layout.width, feature_size[0] * feature_size[1]
        hidden = cells // 8 if layout.stacks == 1 else _HIDDEN_L
        widths = [width, hidden, cells] if 2 * width <= hidden else [width, cells]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.LayerNorm(inputs), nn.Linear(inputs, outputs)]
        self.mlp_head = nn.Sequential(*layers)

    def forward(self, feature: Tensor) -> TokenPoseOutput:
        """Heatmaps (B, J, h, w) and tokens of a feature map (B, C, h, w)."""
        keypoints, visual = self.attend(feature)
        output = TokenPoseOutput(self.mlp_head(keypoints).unflatten(-1, self.feature_size))
        output.tokens = (keypoints, visual)
        return output


@dataclass(frozen=True)
class TokenPoseCodec(Codec):
    """Cell i of w stands for pixel i · (W - 1) / (w - 1): the outermost cells for the outermost pixels.

    A mirrored map is a map reversed, so the flip test averages without a shift.

    Args:
        input_size: (height, width) of the crops in pixels.
        sigma: standard deviation of the targets in cells; None takes `heatmap_sigma` of the map.
    """

    input_size: tuple[int, int]
    sigma: float | None = None
    score_threshold: ClassVar[float] = 0.2  # as in HRNet's code

    def __post_init__(self) -> None:
        check_sigma(self.sigma)

    def places_per_pixel(self, output: TokenPoseOutput) -> tuple[float, float]:
        """Cells per pixel, from the first to the last."""
        (height, width), (rows, columns) = self.input_size, output.heatmaps.shape[2:]
        return (columns - 1) / (width - 1), (rows - 1) / (height - 1)

    def targets(self, output: TokenPoseOutput, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, J, h, w) with Gaussians centred on the keypoints, between cells too; see `Codec.targets`."""
        rows, columns = output.heatmaps.shape[2:]
        # float32 at least: float16 cannot hold a pixel coordinate to a fraction of a cell
        keypoints = keypoints.to(torch.promote_types(keypoints.dtype, torch.float32))
        cells = keypoints * keypoints.new_tensor(self.places_per_pixel(output))
        sigma = heatmap_sigma((rows, columns)) if self.sigma is None else self.sigma
        return heatmap_targets(cells, weights, (rows, columns), (rows, columns), sigma, quantized=False)

    def decode(
        self,
        output: TokenPoseOutput,
        *,
        flipped: tuple[TokenPoseOutput, Tensor] | None = None,
        to_image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The highest cells, refined as by DARK; scores are heights. See `decode_heatmaps` and `Codec.decode`."""
        rows, columns = output.heatmaps.shape[2:]
        cells, scores = decode_heatmaps(
            output.heatmaps,
            (rows, columns),
            flipped=None if flipped is None else (flipped[0].heatmaps, flipped[1]),
            method="dark",
            blur_kernel=_BLUR,
        )
        keypoints = cells / cells.new_tensor(self.places_per_pixel(output))
        if to_image is not None:
            check_tensor("to_image", to_image, (len(keypoints), 2, 3))
            affine = to_image.to(keypoints.dtype)
            keypoints = keypoints @ affine[:, :, :2].mT + affine[:, None, :, 2]
        return keypoints, scores


class TokenPoseLoss(LabelLoss):
    """Half the mean squared difference of the maps from Gaussians around the keypoints, as published.

    The difference is multiplied by the joint's weight before it is squared, and the mean is over all samples, joints
    and cells, those without a label included.

    Args:
        codec: makes the targets.
        name: of the method.
        scale: factor on the result.

    Example:
        >>> import torch
        >>> from cdkd_ext.methods.tokenpose import TokenPoseCodec, TokenPoseLoss, TokenPoseOutput
        >>> loss = TokenPoseLoss(TokenPoseCodec((64, 64)), "tokenpose_b")
        >>> loss(TokenPoseOutput(torch.randn(2, 17, 16, 16)), torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    def __init__(self, codec: TokenPoseCodec, name: str, *, scale: float = 1.0) -> None:
        super().__init__()
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.codec = codec
        self.name = name  # type: ignore[misc]
        self.scale = float(scale)

    def forward(
        self, student: TokenPoseOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`."""
        maps = student.heatmaps
        check_tensor("student.heatmaps", maps, ("B", "J", "h", "w"))
        check_tensor("keypoints", keypoints, (*maps.shape[:2], 2))
        check_weights("weights", weights, (maps.shape[0], maps.shape[1]))
        targets, used = self.codec.targets(student, keypoints, weights)
        difference = (maps.to(targets.dtype) - targets) * used[..., None, None]
        return difference.square().mean() * (0.5 * self.scale)

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.codec.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)


class TokenPose(Method):
    """What TokenPose-B and TokenPose-L share.

    Attributes:
        layout: of which `depth`, `heads` and `patch` can be chosen otherwise.
    """

    layout: ClassVar[TokenLayout]
    options = frozenset({"depth", "heads", "patch"})
    loss = TokenPoseLoss
    codec_type = TokenPoseCodec
    unbiased_crop = True
    backbone_prefix = "pre_feature."
    published = ("hrnet_w32", "hrnet_w48")

    def feature_channels(self, spec: MethodOptions) -> int:
        """J: the heatmaps are the feature."""
        return spec.num_joints

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The transformer, from the backbone's map to the heatmaps."""
        layout = chosen_layout(self.layout, spec)
        return {"transformer": TokenPoseHead(layout, channels[0], size, spec.num_joints)}

    def initialize(self, layers: dict[str, nn.Module]) -> None:
        """Draw the tokens and the linear layers."""
        initialize_tokens(layers["transformer"])

    def read(self, network: Any, features: Tensor) -> TokenPoseOutput:
        """The maps."""
        output: TokenPoseOutput = network.transformer(features)
        return output

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> TokenPoseCodec:
        """See `Method.codec`."""
        return TokenPoseCodec(spec.input_size)

    def label_loss(self, network: Any, options: LabelLossOptions) -> TokenPoseLoss:
        """The squared difference from Gaussians."""
        codec = TokenPoseCodec(network.spec.input_size, options.heatmap_sigma)
        return TokenPoseLoss(codec, self.name, scale=options.scale)


class TokenPoseB(TokenPose):
    """TokenPose-B: one stack of twelve layers."""

    name = head = "tokenpose_b"
    layout = TokenLayout(depth=12)


class TokenPoseL(TokenPose):
    """TokenPose-L/D6: three stacks of two layers, all of whose keypoint tokens are read."""

    name = head = "tokenpose_l"
    layout = TokenLayout(depth=6, stacks=3)


def chosen_layout(layout: TokenLayout, spec: MethodOptions) -> TokenLayout:
    """A layout with what a description chooses otherwise."""
    patch = layout.patch if spec.patch is None else (spec.patch, spec.patch)
    return replace(layout, depth=spec.depth or layout.depth, heads=spec.heads or layout.heads, patch=patch)
