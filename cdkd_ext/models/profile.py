"""How large networks are and how much they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.registry import create_model, list_models


@dataclass(frozen=True)
class ModelProfile:
    """The size and cost of a network.

    Attributes:
        name: as `create_model` knows it.
        input_size: (height, width) in pixels.
        parameters: trainable numbers.
        macs: multiply-accumulates of one image, see `count_macs`.
        paper_gflops: the same as the field prints it, see `paper_gflops`.
    """

    name: str
    input_size: tuple[int, int]
    parameters: int
    macs: int
    paper_gflops: float


def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers such as running statistics do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: PoseNetwork, *, linear: bool = True) -> int:
    """Multiply-accumulates of one image, observed on a real forward pass.

    Counts convolutions, transposed convolutions (once per input element) and, with `linear`, linear layers;
    not normalisation, activation, addition or resizing. The model comes back in the mode it was in.
    """

    def count(layer: nn.Module, given: Tensor, output: Tensor) -> int:
        if isinstance(layer, nn.Linear):
            return output.numel() * layer.in_features if linear else 0
        if isinstance(layer, nn.ConvTranspose2d):
            return given.numel() * layer.weight[0].numel()
        return output.numel() * layer.weight[0].numel()  # type: ignore[index]

    return _sum_over_layers(model, count)


def paper_gflops(model: PoseNetwork) -> float:
    """What the papers on HRNet, SimCC and CDKD print as "GFLOPs" of one image.

    It follows the summary in HRNet's released code: multiply-accumulates divided by 2**30, transposed convolutions
    once per output element (four times too many at stride 2), and linear layers on (1, J, S) with J instead
    of S products per output (nearly nothing). The model comes back in the mode it was in.
    """

    def count(layer: nn.Module, given: Tensor, output: Tensor) -> int:
        if isinstance(layer, nn.Linear):
            return output.numel() * given.shape[1]
        return layer.weight.numel() * prod(output.shape[2:])  # type: ignore[operator]

    return _sum_over_layers(model, count) / 2**30


def profile_models(
    *,
    input_size: tuple[int, int],
    num_joints: int = 17,
    head: str = "simcc",
    split_ratio: float = 3.0,
    channels_per_joint: int = 1,
    names: Sequence[str] | None = None,
) -> list[ModelProfile]:
    """Size and cost of networks, without building their weights.

    Args:
        input_size: see `create_model`, as are `num_joints`, `head`, `split_ratio` and `channels_per_joint`.
        num_joints: J.
        head: "simcc" or "heatmap".
        split_ratio: SimCC bins per pixel.
        channels_per_joint: of the networks without upsampling; the others have one.
        names: which networks; None takes all that have the head.

    Raises:
        InputError: an unknown name, or an option that does not fit a network.
    """
    if names is None:
        names = [name for name in list_models() if head == "simcc" or not _is_upsample_free(name)]
    profiles = []
    for name in names:
        with torch.device("meta"):
            model = create_model(
                name,
                input_size=input_size,
                num_joints=num_joints,
                head=head,
                split_ratio=split_ratio,
                channels_per_joint=channels_per_joint if _is_upsample_free(name) else 1,
            )
        profiles.append(
            ModelProfile(
                name, model.input_size, count_parameters(model), count_macs(model), paper_gflops(model)
            )
        )
    return profiles


def format_profiles(profiles: Sequence[ModelProfile]) -> str:
    """A table with one network per line."""
    lines = [f"{'name':<25}{'input':>9}{'parameters':>13}{'MACs':>12}{'paper GFLOPs':>15}"]
    for profile in profiles:
        height, width = profile.input_size
        lines.append(
            f"{profile.name:<25}{f'{height}x{width}':>9}{profile.parameters / 1e6:>11.3f} M"
            f"{profile.macs / 1e9:>10.3f} G{profile.paper_gflops:>15.3f}"
        )
    notes = (
        "MACs: multiply-accumulates of convolutions and linear layers, in 10^9.",
        "paper GFLOPs: as HRNet's, SimCC's and CDKD's tables count: MACs / 2^30, transposed convolutions four times "
        "over, SimCC's linear layers nearly left out.",
    )
    return "\n".join([*lines, "", *notes])


def _is_upsample_free(name: str) -> bool:
    return name.endswith("_upsample_free")


def _sum_over_layers(model: PoseNetwork, count: Callable[[nn.Module, Tensor, Tensor], int]) -> int:
    """Sum `count(layer, input, output)` over the convolutions and linear layers of one image's forward pass."""
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += count(layer, inputs[0], output)

    counted = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [layer.register_forward_hook(add) for layer in model.modules() if isinstance(layer, counted)]
    training = {module: module.training for module in model.modules()}
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, *model.input_size, dtype=parameter.dtype, device=parameter.device)
    try:
        model.eval()
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return total
