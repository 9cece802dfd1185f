"""Pose networks by name."""

from __future__ import annotations

from cdkd_ext._checks import check_option
from cdkd_ext.models.hrnet import HRNet, HRNetLayout
from cdkd_ext.models.pose_network import PoseNetwork

_SMALL = (1, 1, 1)

_HRNETS = {
    "hrnet_w32": HRNetLayout(32),
    "hrnet_w48": HRNetLayout(48),
    "hrnet_w8_small": HRNetLayout(8, _SMALL, blocks=1, stem_width=16, bottlenecks=1),
    "hrnet_w16_small": HRNetLayout(16, _SMALL, blocks=1, stem_width=16, bottlenecks=1),
    "hrnet_w24_small": HRNetLayout(24, _SMALL, blocks=1, stem_width=32, bottlenecks=1),
    "hrnet_w32_small": HRNetLayout(32, _SMALL, blocks=2, stem_width=32, bottlenecks=2),
}


def list_models() -> list[str]:
    """Names that `create_model` accepts, sorted."""
    return sorted(_HRNETS)


def create_model(
    name: str,
    *,
    input_size: tuple[int, int],
    num_joints: int,
    head: str = "simcc",
    split_ratio: float = 3.0,
) -> PoseNetwork:
    """Build a pose network with fresh weights.

    Args:
        name: one of `list_models()`.
        input_size: (height, width) of the crops in pixels; multiples of 32 for HRNet.
        num_joints: J.
        head: "simcc".
        split_ratio: bins per pixel; an axis of n pixels has int(n * split_ratio) bins.

    Returns:
        A module with the attributes `name`, `input_size`, `num_joints`, `head`, `split_ratio` and
        `feature_size`, whose forward takes normalised images (B, 3, H, W) and returns a `PoseOutput`.

    Raises:
        InputError: an unknown name or head, or a size, count or ratio that does not fit the network.
    """
    check_option("name", name, list_models())
    return HRNet(
        name,
        _HRNETS[name],
        input_size=input_size,
        num_joints=num_joints,
        head=head,
        split_ratio=split_ratio,
    )
