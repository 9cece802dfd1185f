"""Pose networks by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cdkd_ext.errors import check, check_option
from cdkd_ext.models.hrnet import HRNet, HRNetLayout
from cdkd_ext.models.lowres import LowRes, LowResLayout
from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.resnet import ResNet, ResNetLayout
from cdkd_ext.models.spec import ModelSpec

_SMALL = (1, 1, 1)

_HRNETS = {
    "hrnet_w32": HRNetLayout(32),
    "hrnet_w48": HRNetLayout(48),
    "hrnet_w8_small": HRNetLayout(8, _SMALL, blocks=1, stem_width=16, bottlenecks=1),
    "hrnet_w16_small": HRNetLayout(16, _SMALL, blocks=1, stem_width=16, bottlenecks=1),
    "hrnet_w24_small": HRNetLayout(24, _SMALL, blocks=1, stem_width=32, bottlenecks=1),
    "hrnet_w32_small": HRNetLayout(32, _SMALL, blocks=2, stem_width=32, bottlenecks=2),
}

_LOWRES = {
    "lowres_small": LowResLayout((24, 48, 96)),
    "lowres_base": LowResLayout((32, 64, 128)),
    "lowres_large": LowResLayout((48, 96, 192)),
}

_RESNET_BLOCKS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}

_RESNETS = {
    f"resnet{depth}{suffix}": ResNetLayout(blocks, upsampling=upsampling)
    for suffix, upsampling in (("", (256, 256, 256)), ("_upsample_free", ()))
    for depth, blocks in _RESNET_BLOCKS.items()
}


def list_models() -> list[str]:
    """Names that `create_model` accepts, sorted."""
    return sorted([*_HRNETS, *_LOWRES, *_RESNETS])


def describe_models(names: Sequence[str] | None = None, **options: Any) -> list[ModelSpec]:
    """Describe several networks that share their options.

    Args:
        names: some of `list_models()`; None takes all that have the head.
        options: the other fields of `ModelSpec`; `channels_per_joint` concerns the networks without upsampling.

    Raises:
        InputError: an unknown name, or an option that is out of range.
    """
    heatmaps = options.get("head") == "heatmap"
    if names is None:
        names = [name for name in list_models() if not (heatmaps and _is_upsample_free(name))]
    specs = []
    for name in names:
        check_option("name", name, list_models())
        own = options if _is_upsample_free(name) else options | {"channels_per_joint": 1}
        specs.append(ModelSpec(name=name, **own))
    return specs


def _is_upsample_free(name: str) -> bool:
    return name in _RESNETS and not _RESNETS[name].upsampling


def create_model(model: str | ModelSpec, **options: Any) -> PoseNetwork:
    """Build a pose network with fresh weights.

    Args:
        model: one of `list_models()`, or a whole description. ``resnet*`` has three transposed convolutions
            (SimpleBaselines); ``resnet*_upsample_free`` has none, and a SimCC head.
        options: beside a name, the fields of `ModelSpec`: `input_size` and `num_joints`, and where they differ from
            its defaults `head`, `split_ratio`, `channels_per_joint`, `decoding`, `color_order`, `stem_stride`,
            `padding`, `resample` and `joints`.

    Returns:
        A module with the attributes `spec`, `feature_size` and the description's fields, whose forward takes RGB
        images (B, 3, H, W) and returns a `SimCCOutput` or a `HeatmapOutput`.

    Raises:
        InputError: an unknown name or option, or a size, count or ratio that does not fit the network.

    Example:
        >>> import torch
        >>> from cdkd_ext import create_model
        >>> network = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=17, split_ratio=2.0)
        >>> network.eval()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).logits_x.shape
        torch.Size([1, 17, 64])
    """
    if isinstance(model, ModelSpec):
        check(not options, "options", ", ".join(options), "none beside a ModelSpec")
        spec = model
    else:
        spec = ModelSpec(name=model, **options)
    check_option("name", spec.name, list_models())
    if spec.name in _RESNETS:
        return ResNet(_RESNETS[spec.name], spec)
    if spec.name in _LOWRES:
        return LowRes(_LOWRES[spec.name], spec)
    return HRNet(_HRNETS[spec.name], spec)
