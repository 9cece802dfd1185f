"""Pose networks by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from cdkd_ext.errors import InputError, check, check_option
from cdkd_ext.methods import METHODS, hourglass, method_for, okdhp
from cdkd_ext.models.hourglass import HourglassNetwork
from cdkd_ext.models.hrnet import HRNet, HRNetLayout
from cdkd_ext.models.lowres import LowRes, LowResLayout
from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.resnet import ResNet, ResNetLayout
from cdkd_ext.models.spec import ModelSpec
from cdkd_ext.models.swin import Swin, SwinLayout

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

_SWINS = {
    "swin_v2_base": SwinLayout(),
    "swin_v2_w16": SwinLayout(16, (1, 2, 1, 1), (2, 2, 4, 4), (8, 8, 4, 2), (8, 8, 4, 2)),
}

_NETWORKS: dict[str, tuple[Any, Any]] = {
    **{name: (HRNet, layout) for name, layout in _HRNETS.items()},
    **{name: (LowRes, layout) for name, layout in _LOWRES.items()},
    **{name: (ResNet, layout) for name, layout in _RESNETS.items()},
    **{name: (Swin, layout) for name, layout in _SWINS.items()},
    **{name: (HourglassNetwork, layout) for name, layout in (hourglass.LAYOUTS | okdhp.LAYOUTS).items()},
}


def list_models() -> list[str]:
    """Names that `create_model` accepts, sorted."""
    return sorted(_NETWORKS)


def describe_models(names: Sequence[str] | None = None, **options: Any) -> list[ModelSpec]:
    """Describe several networks that share their options.

    Args:
        names: some of `list_models()`; None takes all that have the head, hourglasses where the crop is large enough.
        options: the other fields of `ModelSpec`; `channels_per_joint` concerns SimCC on networks without upsampling.

    Raises:
        InputError: an unknown name, or an option that is out of range.
    """
    head = options.get("head", "simcc")
    if names is None:
        found = (_if_possible(name, head, options) for name in list_models() if _has(name, head))
        return [spec for spec in found if spec is not None]
    for name in names:
        check_option("name", name, list_models())
    return [_described(name, head, options) for name in names]


def describe_published(**options: Any) -> list[ModelSpec]:
    """Describe all networks with a SimCC head, and those of the other methods whose size the literature prints.

    A method's network that these options do not fit, such as of a crop that is too small for it, is left out.

    Args:
        options: the fields of `ModelSpec` but for `name` and `head`.

    Raises:
        InputError: an option is out of range.
    """
    specs = describe_models(**options)
    for method in METHODS:
        for name in method.published:
            try:
                specs.append(_described(name, method.head, options | {"head": method.head}))
            except InputError:
                continue
    return specs


def _described(name: str, head: str, options: dict[str, Any]) -> ModelSpec:
    several = head == "simcc" and _is_upsample_free(name)
    return ModelSpec(name=name, **(options if several else options | {"channels_per_joint": 1}))


def _if_possible(name: str, head: str, options: dict[str, Any]) -> ModelSpec | None:
    """The description; None of a network with a method of its own that does not take these options."""
    try:
        return _described(name, head, options)
    except InputError:
        if name in method_for(head, name).networks:
            return None
        raise


def _has(name: str, head: str) -> bool:
    """Whether a network can have a head."""
    method = method_for(head, name)
    if method.networks and name not in method.networks:
        return False
    high = method.takes_low_resolution or not _is_upsample_free(name)
    return high and method.trunk in _NETWORKS[name][0].trunks


def _is_upsample_free(name: str) -> bool:
    return name in _RESNETS and not _RESNETS[name].upsampling


def create_model(model: str | ModelSpec, **options: Any) -> PoseNetwork:
    """Build a pose network with fresh weights.

    Args:
        model: one of `list_models()`, or a whole description. ``resnet*`` has three transposed convolutions
            (SimpleBaselines); ``resnet*_upsample_free`` has none, for SimCC and RLE.
        options: beside a name, the fields of `ModelSpec`: `input_size` and `num_joints`, and where they differ from
            its defaults `head`, `split_ratio`, `channels_per_joint`, `decoding`, `color_order`, `stem_stride`,
            `depth`, `heads`, `patch`, `offset_scale`, `padding`, `resample` and `joints`.

    Returns:
        A module with the attributes `spec`, `feature_size` and the description's fields, whose forward takes RGB
        images (B, 3, H, W) and returns the named tuple of its head, a `SimCCOutput` or a `HeatmapOutput` for instance.

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
        known = [field.name for field in fields(ModelSpec)]
        for option in options:
            check_option("options", option, known)
        for option in ("input_size", "num_joints"):
            check(option in options, option, "nothing", "what a name does not say")
        spec = ModelSpec(name=model, **options)
    check_option("name", spec.name, list_models())
    network, layout = _NETWORKS[spec.name]
    made: PoseNetwork = network(layout, spec)
    return made
