"""Pose networks by name."""

from __future__ import annotations

from cdkd_ext._checks import check_option
from cdkd_ext.models.hrnet import HRNet, HRNetLayout
from cdkd_ext.models.pose_network import PoseNetwork, PoseOptions
from cdkd_ext.models.resnet import ResNet, ResNetLayout

_SMALL = (1, 1, 1)

_HRNETS = {
    "hrnet_w32": HRNetLayout(32),
    "hrnet_w48": HRNetLayout(48),
    "hrnet_w8_small": HRNetLayout(8, _SMALL, blocks=1, stem_width=16, bottlenecks=1),
    "hrnet_w16_small": HRNetLayout(16, _SMALL, blocks=1, stem_width=16, bottlenecks=1),
    "hrnet_w24_small": HRNetLayout(24, _SMALL, blocks=1, stem_width=32, bottlenecks=1),
    "hrnet_w32_small": HRNetLayout(32, _SMALL, blocks=2, stem_width=32, bottlenecks=2),
}

_RESNET_BLOCKS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}

_RESNETS = {
    f"resnet_{depth}{suffix}": ResNetLayout(blocks, upsampling=upsampling)
    for suffix, upsampling in (("", (256, 256, 256)), ("_upsample_free", ()))
    for depth, blocks in _RESNET_BLOCKS.items()
}


def list_models() -> list[str]:
    """Names that `create_model` accepts, sorted."""
    return sorted([*_HRNETS, *_RESNETS])


def create_model(
    name: str,
    *,
    input_size: tuple[int, int],
    num_joints: int,
    head: str = "simcc",
    split_ratio: float = 3.0,
    channels_per_joint: int = 1,
    decoding: str = "quarter",
    color_order: str = "rgb",
) -> PoseNetwork:
    """Build a pose network with fresh weights.

    Args:
        name: one of `list_models()`. ``resnet_*`` has three transposed convolutions (SimpleBaselines);
            ``resnet_*_upsample_free`` has none, and a SimCC head.
        input_size: (height, width) of the crops in pixels, square or not; multiples of 32.
        num_joints: J.
        head: "simcc", or "heatmap" for one map per joint at a quarter of the input's resolution.
        split_ratio: SimCC bins per pixel; an axis of n pixels has int(n * split_ratio) bins.
        channels_per_joint: feature maps per joint behind a SimCC head. The published upsample-free networks have
            32, at 256x192 28.
        decoding: how heatmaps become keypoints: "quarter" is HRNet's quarter offset, "dark" DARK's Taylor step;
            it also decides whether training puts the targets' centres on cells, as the former does.
        color_order: what the first convolution expects. Images are always given as RGB; "bgr" is for the
            published ResNet weights (SimpleBaselines, SimCC), which were trained on OpenCV's order.

    Returns:
        A module with the attributes `name`, `input_size`, `num_joints`, `head`, `split_ratio`,
        `channels_per_joint`, `decoding`, `color_order`, `feature_size` and `feature_channels`, whose forward
        takes normalised RGB images (B, 3, H, W) and returns a `PoseOutput` or a `HeatmapOutput`.

    Raises:
        InputError: an unknown name or option, or a size, count or ratio that does not fit the network.
    """
    check_option("name", name, list_models())
    options = PoseOptions(
        input_size, num_joints, head, split_ratio, channels_per_joint, decoding, color_order
    )
    if name in _RESNETS:
        return ResNet(name, _RESNETS[name], options)
    return HRNet(name, _HRNETS[name], options)
