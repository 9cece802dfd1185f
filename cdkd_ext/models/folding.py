"""A frozen network in fewer, larger steps: batch norms, additions and ReLUs inside the convolutions."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from cdkd_ext.errors import check_option, check_type
from cdkd_ext.models.pose_network import PoseNetwork

_PRECISIONS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_Convolution = nn.Conv2d | nn.ConvTranspose2d


def inference_copy(network: PoseNetwork, dtype: torch.dtype = torch.float32) -> PoseNetwork:
    """A copy of a network for evaluation alone: the same function, up to rounding, in fewer steps.

    Every batch norm whose only input is a convolution (transposed or not) that feeds nothing else goes into that
    convolution's weights, in float64. On the CPU, a ReLU right behind it, or an addition and a ReLU, become part of
    oneDNN's convolution. Whatever cannot be shown to have this form in a trace of `features` is left as it is, and
    so is a network whose `features` cannot be traced. The head computes in float32.

    Args:
        network: the network, on its device; it is not changed.
        dtype: what `features` computes in, torch.float32, torch.bfloat16 or torch.float16; its input and result are float32.

    Returns:
        A network in evaluation mode whose forward takes and returns what `network`'s does. It cannot be trained,
        moved or saved: use `network` for that.
    """
    check_type("network", network, PoseNetwork, "a PoseNetwork")
    check_option("dtype", dtype, _PRECISIONS)
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    features = _trace(frozen)
    compute: Callable[[Tensor], Tensor | tuple[Tensor, ...]]
    if features is None:
        untraced = copy.deepcopy(frozen)
        layers: nn.Module = untraced
        compute = untraced.features
    else:
        # the graph keeps what it uses
        for name in {str(node.target).partition(".")[0] for node in _modules_called(features)}:
            delattr(frozen, name)
        _fold_batch_norms(features)
        if _has_fused_convolutions(network, dtype):
            _fuse(features, torch.zeros(1, 3, *network.input_size, dtype=next(network.parameters()).dtype))
        features.graph.lint()
        features.recompile()
        layers = compute = features
    layers.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def run(images: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = compute(images.to(dtype, memory_format=torch.channels_last))
        # the head's linear layers would copy their weights for every sample of a map that is channels last
        maps = [
            map_.to(torch.float32, memory_format=torch.contiguous_format)
            for map_ in (found if isinstance(found, tuple) else (found,))
        ]
        return tuple(maps) if isinstance(found, tuple) else maps[0]

    frozen.features = run  # type: ignore[method-assign]
    return frozen


class _FeatureTracer(fx.Tracer):
    traced_func_name = "features"


def _trace(network: PoseNetwork) -> fx.GraphModule | None:
    """The layers of `features` as a graph, or None where its control flow depends on the images."""
    try:
        return fx.GraphModule(network, _FeatureTracer().trace(network))
    except Exception:  # such control flow can raise almost anything
        return None


def _modules_called(features: fx.GraphModule) -> list[fx.Node]:
    return [node for node in features.graph.nodes if node.op == "call_module"]


def _module(features: fx.GraphModule, node: object, types: type | tuple[type, ...]) -> nn.Module | None:
    """The module that a node calls on one input, if it is exactly of one of these types."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return None
    module = features.get_submodule(str(node.target))
    types = types if isinstance(types, tuple) else (types,)
    return module if type(module) in types else None


def _remove(node: fx.Node, replacement: fx.Node) -> None:
    node.replace_all_uses_with(replacement)
    node.graph.erase_node(node)


def _insert(features: fx.GraphModule, module: nn.Module, before: fx.Node, *inputs: fx.Node) -> fx.Node:
    """Call a module of the node's own in front of a node."""
    name = f"{before.name}_folded"
    features.add_submodule(name, module)
    with features.graph.inserting_before(before):
        return features.graph.call_module(name, inputs)


def _fold_batch_norms(features: fx.GraphModule) -> None:
    for node in list(features.graph.nodes):
        if _module(features, node, nn.Identity):
            _remove(node, node.args[0])
    for node in list(features.graph.nodes):
        norm = _module(features, node, nn.BatchNorm2d)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        source = node.args[0]
        convolution = _module(features, source, _CONVOLUTIONS)
        if not isinstance(convolution, _CONVOLUTIONS) or len(source.users) != 1:
            continue
        folded = _insert(features, _folded(convolution, norm), source, source.args[0])
        _remove(node, folded)
        features.graph.erase_node(source)
    features.delete_all_unused_submodules()


def _folded(convolution: _Convolution, norm: nn.BatchNorm2d) -> _Convolution:
    """One convolution that equals a convolution and the batch norm behind it in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()  # (C,)
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    weight = convolution.weight.double()
    if isinstance(convolution, nn.ConvTranspose2d):
        # (inputs, C / groups, k, k): the groups lie along the inputs
        groups = convolution.groups
        grouped = weight.view(groups, -1, *weight.shape[1:]) * scale.view(groups, 1, -1, 1, 1)
        weight = grouped.view_as(weight)
    else:
        weight = weight * scale[:, None, None, None]
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    folded = copy.deepcopy(convolution)
    folded.weight = nn.Parameter(weight.to(convolution.weight.dtype), requires_grad=False)
    folded.bias = nn.Parameter(shift.to(convolution.weight.dtype), requires_grad=False)
    return folded


class _FusedConvolution(nn.Module):
    """ReLU of a convolution, or of its sum with a map of the result's shape, in one pass over memory."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        layer = self.convolution
        geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, layer.weight, layer.bias, *geometry, "relu", [], None
            )
        return torch.ops.mkldnn._convolution_pointwise(
            x, other, layer.weight, layer.bias, *geometry, "add", 1.0, "relu", [], None
        )


def _has_fused_convolutions(network: PoseNetwork, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes on this network's device in this type."""
    on_cpu = next(network.parameters()).device.type == "cpu" and torch.backends.mkldnn.is_available()
    if not on_cpu or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _fuse(features: fx.GraphModule, image: Tensor) -> None:
    """Put ReLUs, and additions with a ReLU, that directly follow a convolution into it."""
    ShapeProp(features).propagate(image)
    for node in list(features.graph.nodes):
        convolution = _module(features, node, nn.Conv2d)
        if not isinstance(convolution, nn.Conv2d) or isinstance(convolution.padding, str):
            continue
        # nothing may lie between the steps: an in-place ReLU there could change what the later ones read
        last, inputs = node, [node.args[0]]
        if convolution.padding_mode == "zeros" and _feeds_only(last, last.next):
            other = _addend(last.next, node)
            if other is not None:
                last = last.next
                inputs.append(other)
            relu = last.next
            if _feeds_only(last, relu) and _module(features, relu, nn.ReLU):
                fused = _insert(features, _FusedConvolution(convolution), relu, *inputs)
                fused.meta = dict(relu.meta)
                _remove(relu, fused)
                for step in (last, node) if last is not node else (node,):
                    features.graph.erase_node(step)
    features.delete_all_unused_submodules()


def _feeds_only(node: fx.Node, user: fx.Node) -> bool:
    return list(node.users) == [user]


def _addend(node: fx.Node, term: fx.Node) -> fx.Node | None:
    """The other term, of the same shape, of the sum that a node computes; None if it computes no such sum."""
    if node.op != "call_function" or node.target not in (torch.add, operator.add) or node.kwargs:
        return None
    others = [value for value in node.args if value is not term]
    if len(node.args) != 2 or len(others) != 1 or not isinstance(others[0], fx.Node):
        return None
    shapes = [getattr(value.meta.get("tensor_meta"), "shape", None) for value in (term, others[0])]
    return others[0] if shapes[0] is not None and shapes[0] == shapes[1] else None
