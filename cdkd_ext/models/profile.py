"""How large networks are and how much they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.registry import create_model
from cdkd_ext.models.spec import ModelSpec


@dataclass(frozen=True)
class ModelProfile:
    """The size and cost of a network.

    Attributes:
        name: as `create_model` knows it.
        head: its method.
        input_size: (height, width) in pixels.
        parameters: trainable numbers.
        macs: multiply-accumulates of one image, see `count_macs`.
        paper_gflops: the same as the field prints it, see `paper_gflops`.
    """

    name: str
    head: str
    input_size: tuple[int, int]
    parameters: int
    macs: int
    paper_gflops: float


def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers such as running statistics do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: PoseNetwork, *, linear: bool = True) -> int:
    """Multiply-accumulates of one image, observed on a real forward pass.

    Counts convolutions, transposed convolutions (once per input element) and, with `linear`, linear layers and the other
    products of matrices, such as attention's; not normalisation, activation, addition or resizing. The model comes
    back in the mode it was in.
    """
    return _macs(_observe(model)[1], linear)


def call_macs(call: Callable[[], object]) -> int:
    """Multiply-accumulates of whatever a function computes with torch, counted as `count_macs` does."""
    return _macs(_operations(call))


def paper_gflops(model: PoseNetwork) -> float:
    """What the papers on CDKD and on the network's method print as "GFLOPs" of one image.

    For most it follows the summary in HRNet's released code: multiply-accumulates divided by 2**30, transposed
    convolutions once per output element (four times too many at stride 2), and linear layers on (1, J, S) with J
    instead of S products per output (nearly nothing). PRTR's and PCT's are those of the package thop, in 10**9:
    convolutions, calls of linear layers, four operations for each element of a norm and three for each of a softmax, of
    torch's own modules alone; of PRTR all decoder layers are read, of PCT the backbone alone is counted. DistilPose's are
    those of mmcv, the same with two operations. The model comes back in the mode it was in.
    """
    return _as_papers_print(model, _observe(model)[0])


def _as_papers_print(model: PoseNetwork, layers: list[_Layer]) -> float:
    counter = model.spec.method.counter
    if model.spec.method.name == "prtr":
        layers, _ = _observe(model, trained=True)
    if model.spec.method.counts_backbone:
        head = {part for name in model.head_parts for part in model.get_submodule(name).modules()}
        layers = [layer for layer in layers if layer.module not in head]
    return _as_hrnet(layers) if counter == "hrnet" else _with_norms(layers, {"thop": 4, "mmcv": 2}[counter])


def profile_models(specs: Iterable[ModelSpec]) -> list[ModelProfile]:
    """Size and cost of described networks, without building their weights.

    Raises:
        InputError: an unknown name, or an option that does not fit a network.
    """
    profiles = []
    for spec in specs:
        with torch.device("meta"):
            model = create_model(spec)
        layers, operations = _observe(model)
        sizes = count_parameters(model), _macs(operations), _as_papers_print(model, layers)
        profiles.append(ModelProfile(spec.name, spec.head, spec.input_size, *sizes))
    return profiles


def format_profiles(profiles: Sequence[ModelProfile]) -> str:
    """A table with one network per line; which head each has where they differ."""
    heads = len({profile.head for profile in profiles}) > 1
    lines = [
        f"{'name':<25}{'input':>9}{'  head       ' if heads else ''}{'parameters':>13}{'MACs':>12}{'paper GFLOPs':>15}"
    ]
    for profile in profiles:
        height, width = profile.input_size
        lines.append(
            f"{profile.name:<25}{f'{height}x{width}':>9}{f'  {profile.head:<11}' if heads else ''}"
            f"{profile.parameters / 1e6:>11.3f} M"
            f"{profile.macs / 1e9:>10.3f} G{profile.paper_gflops:>15.3f}"
        )
    notes = (
        "MACs: multiply-accumulates of convolutions, linear layers and attention, in 10^9.",
        "paper GFLOPs: as the papers' tables count. PRTR, PCT and DistilPose: 10^9 operations of layers, norms among them.",
        "All others: MACs / 2^30, transposed convolutions four times over, SimCC's linear layers nearly left out.",
    )
    return "\n".join([*lines, "", *notes])


class _Layer(NamedTuple):
    """A convolution, linear layer, norm or softmax at work; the last has no weight."""

    module: nn.Module
    weight: torch.Size
    given: torch.Size
    output: torch.Size


def _observe(model: PoseNetwork, trained: bool = False) -> tuple[list[_Layer], Mapping[Any, int]]:
    """The layers of one image's forward pass that a counter asks for, and twice the products of each operator.

    With `trained` the network returns what it returns in training, though its norms are in evaluation mode.
    """
    layers: list[_Layer] = []

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = getattr(module, "weight", None)
        shape = weight.shape if isinstance(weight, Tensor) else torch.Size()
        layers.append(_Layer(module, shape, inputs[0].shape, output.shape))

    observed = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.Softmax)
    handles = [layer.register_forward_hook(add) for layer in model.modules() if isinstance(layer, observed)]
    training = {module: module.training for module in model.modules()}
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, *model.input_size, dtype=parameter.dtype, device=parameter.device)
    try:
        model.eval()
        model.training = trained
        operations = _operations(lambda: model(image))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return layers, operations


class _Counter(TorchDispatchMode):
    """Counts twice the products of each operator, as torch's own counter, which is many times slower without weights.

    Attributes:
        operations: the sums.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[Any] = Counter()

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if operator is torch.ops.aten.native_batch_norm.default and args[0].is_meta:
            # torch finds its shape in Python, through every operation that it is made of
            nothing = args[0].new_empty(0)
            return torch.empty_like(args[0]), nothing, nothing
        kwargs = kwargs or {}
        result, name = operator(*args, **kwargs), operator.overloadpacket
        if name in flop_registry:
            self.operations[name] += flop_registry[name](*args, **kwargs, out_val=result)
        return result


def _operations(call: Callable[[], object]) -> Mapping[Any, int]:
    """Twice the products of each operator in a call."""
    # of attention only the plain form is counted, product by product
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Counter() as counted:
        call()
    return counted.operations


def _macs(operations: Mapping[Any, int], linear: bool = True) -> int:
    convolution = torch.ops.aten.convolution
    return sum(twice for name, twice in operations.items() if linear or name == convolution) // 2


def _as_hrnet(layers: Sequence[_Layer]) -> float:
    total = 0
    for layer in layers:
        if isinstance(layer.module, nn.Linear):
            total += prod(layer.output) * layer.given[1]
        elif isinstance(layer.module, (nn.Conv2d, nn.ConvTranspose2d)):
            total += prod(layer.weight) * prod(layer.output[2:])
    return total / 2**30


def _with_norms(layers: Sequence[_Layer], per_element: int) -> float:
    total = 0
    for layer in layers:
        # both programs look a layer up by its exact type
        kind, elements = type(layer.module), prod(layer.output)
        if kind in (nn.BatchNorm2d, nn.LayerNorm):
            total += per_element * elements
        elif kind is nn.Softmax:
            total += 3 * elements - elements // layer.output[-1]
        elif kind in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear):
            total += elements * prod(layer.weight[1:])
    return total / 1e9
