"""TokenPose's head (Li et al., TokenPose: Learning Keypoint Tokens for Human Pose Estimation)."""

from __future__ import annotations

from torch import Tensor, nn

from cdkd_ext.models.tokens import KeypointTokens, TokenLayout, initialize_tokens

TOKENPOSE_B = TokenLayout(depth=12)
"""TokenPose-B of the compared systems on COCO; at 256x192 it was published with patches of (4, 3)."""
TOKENPOSE_L = TokenLayout(depth=6, stacks=3)
"""TokenPose-L/D6 of the compared systems on MPII; L/D24, with 12 heads, was published for COCO."""


class TokenPoseHead(KeypointTokens):
    """Heatmaps from keypoint tokens.

    A hidden layer of an eighth of the map's cells lies in front of the last one where it has at least twice as many
    channels as a token: in TokenPose-B at 256x192, and at no size in TokenPose-L.

    Args:
        layout: `TOKENPOSE_B`, `TOKENPOSE_L`, or one of other depth, heads or patches.
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
        # 384 hidden channels are what TokenPose-L has at every size
        hidden = cells // 8 if layout.stacks == 1 else 384
        widths = [width, hidden, cells] if 2 * width <= hidden else [width, cells]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [nn.LayerNorm(inputs), nn.Linear(inputs, outputs)]
        self.mlp_head = nn.Sequential(*layers)
        initialize_tokens(self)

    def forward(self, feature: Tensor) -> Tensor:
        """Heatmaps (B, J, h, w) of a feature map (B, C, h, w)."""
        keypoints, _ = self.attend(feature)
        return self.mlp_head(keypoints).unflatten(-1, self.feature_size)
