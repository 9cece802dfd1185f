"""How large a network is and how much it computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cdkd_ext.models.pose_network import PoseNetwork


def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers such as running statistics do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: PoseNetwork, *, linear: bool = True) -> int:
    """Multiply-accumulates of one image, observed on a real forward pass.

    Counts convolutions, transposed convolutions (once per input element) and, with `linear`, linear layers;
    not normalisation, activation, addition or resizing. The model comes back in the mode it was in.

    The CDKD paper's "GFLOPs" are the convolutions alone, divided by 2**30.
    """
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features
        elif isinstance(layer, nn.ConvTranspose2d):
            total += inputs[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()

    counted: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d)
    if linear:
        counted = (*counted, nn.Linear)
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
