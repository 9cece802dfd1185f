"""An ONNX graph as a PyTorch module that learns, and back: into the same graph, with other numbers."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cdkd_ext.adaptation.onnx_modules import onnx2torch, unknown_operators
from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.files import replacing
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.training.precision import tf32

TOLERANCE = 1e-3  # of an output's largest value: float32 that was summed in another order
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
# what only moves values about
_MOVES = ("Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_FLOATS = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
_INITIALIZERS = "initializers"  # what onnx2torch calls the tensors that it leaves outside of modules


@dataclass(frozen=True)
class _Weight:
    """A parameter of the module, and whether the graph holds it transposed."""

    parameter: nn.Parameter
    transposed: bool


class TrainableGraph(nn.Module):
    """The graph of an ONNX file as a module.

    Batch normalisation keeps its statistics, and dropout does nothing, as in the file. Where the file fixes the size of
    the batch, the module takes any.

    Args:
        path: the file; its weights are float32.
        before_sigmoid: outputs to return as they are before the sigmoid that they end with, if they do: a loss of logits
            is exact there. `logits` says of which it was possible.

    Attributes:
        path: the file.
        logits: the outputs that are returned before their sigmoid.
        weights: names of the tensors in the graph that can learn.

    Raises:
        InputError: the file is no ONNX file, its weights are quantised or no float32, or an operator is not known.
        ModuleNotFoundError: onnx or onnx2torch is not installed.

    Example:
        ```python
        graph = TrainableGraph("movenet.onnx", before_sigmoid=("heatmap",))
        outputs = graph(torch.zeros(16, 192, 192, 3))
        ...
        graph.save("adapted.onnx", crops)
        ```
    """

    def __init__(self, path: str | os.PathLike[str], *, before_sigmoid: Collection[str] = ()) -> None:
        super().__init__()
        self.path = Path(path)
        # refuses what onnxruntime cannot run
        OnnxFile(path, cpu=True)
        self._model = onnx.load(str(path))
        _check_model(self._model, str(path))
        working = onnx.ModelProto()
        working.CopyFrom(self._model)
        _lift_constants(working)
        _free_batch(working)
        self.logits = frozenset(name for name in before_sigmoid if _without_sigmoid(working, name))
        self._names = [output.name for output in self._model.graph.output]
        self.graph = _converted(working, str(path))
        self._returned = _returned(working)
        self._weights = _weights(working, self.graph)
        check(self._weights, str(path), "no weights of float32", "a network with weights that can learn")
        learning = {id(weight.parameter) for weight in self._weights.values()}
        for parameter in self.graph.parameters():
            parameter.requires_grad_(id(parameter) in learning)
        self.train(False)

    def train(self, mode: bool = True) -> TrainableGraph:
        """Stay in evaluation mode: the graph's statistics are constants."""
        return super().train(False)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters that learn by their tensors' names in the graph."""
        return {name: weight.parameter for name, weight in self._weights.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the graph's outputs by name for what its one input takes."""
        results = self.graph(images)
        if isinstance(results, Tensor):
            results = [results]
        outputs = {}
        for name, (place, part) in self._returned.items():
            outputs[name] = results[place] if part is None else results[place][part]
        return outputs

    @torch.no_grad()
    def check(self, images: Tensor, file: OnnxFile | None = None) -> None:
        """Compare every output with what onnxruntime makes of a file.

        Args:
            images: what the graph's input takes, at least two.
            file: a file of the same graph; None takes the one that was read.

        Raises:
            InputError: names the output that differs, or the size of the batch if that is the reason.
        """
        file = file or OnnxFile(self.path, cpu=True)
        shown = str(file.path)
        try:
            # what a GPU rounds by default would be as much as is allowed
            with tf32(False):
                outputs = self(images)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            got = f"one that fails for {len(images)} images: {_one_line(error)}"
            fail(shown, got, "a graph for any number of images; export it with an open batch size")
        (info,) = file.inputs.values()
        for name, wanted in file.for_each(images.cpu().numpy().astype(info.dtype)).items():
            own = outputs[name].sigmoid() if name in self.logits else outputs[name]
            if tuple(own.shape) != wanted.shape:
                fail(
                    f"{shown}: output {name}",
                    f"{tuple(own.shape)} in PyTorch",
                    f"{wanted.shape} of onnxruntime",
                )
            # beside a probability near 0 nothing is small
            scale = max(float(np.abs(wanted).max(initial=0)), 0.1)
            off = float((own.cpu() - torch.from_numpy(wanted)).abs().max()) / scale
            check(
                off <= TOLERANCE,
                f"{shown}: output {name}",
                f"a difference of {off:.2g} of its largest value in PyTorch",
                f"at most {TOLERANCE:g} of what onnxruntime gives",
            )

    def save(
        self, path: str | os.PathLike[str], images: Tensor, *, metadata: dict[str, str] | None = None
    ) -> None:
        """Write the graph of the file that was read, its weights replaced by those of the module.

        The file appears once onnxruntime has given the module's outputs for it.

        Args:
            path: the new file.
            images: to compare on; see `check`.
            metadata: entries to add to the file's own.

        Raises:
            InputError: an output differs, a weight is not finite, or the file cannot be written.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        tensors = dict(_tensors(model))
        for name, weight in self._weights.items():
            values = weight.parameter.detach().float().cpu().numpy()
            check(np.isfinite(values).all(), f"weight {name}", "infinite or NaN values", "finite numbers")
            array = np.ascontiguousarray(values.T if weight.transposed else values)
            tensors[name].CopyFrom(numpy_helper.from_array(array, tensors[name].name))
        for key, value in (metadata or {}).items():
            _set_metadata(model, key, value)
        with replacing(path) as temporary:
            onnx.save(model, str(temporary))
            try:
                self.check(images, OnnxFile(temporary, cpu=True))
            except InputError as error:
                raise InputError(str(error).replace(str(temporary), str(path))) from error


def _check_model(model: Any, path: str) -> None:
    quantised = sorted(
        {
            node.op_type
            for node in model.graph.node
            if node.op_type in _QUANTISED or node.op_type.startswith("QLinear")
        }
    )
    if quantised:
        fail(
            path,
            f"quantised weights ({', '.join(quantised)})",
            "the float32 network: integers have no gradient",
        )
    for name, tensor in _tensors(model):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        check(tensor.data_type not in _FLOATS, path, f"{name} of {kind}", "weights of FLOAT (float32)")
    unknown = unknown_operators(model)
    if unknown:
        expected = "operators that onnx2torch converts; export the network again without them, such as without its decoding"
        fail(path, f"the operators {', '.join(unknown)}", expected)


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """The constant tensors of a graph by the names of their values, wherever it keeps them."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _lift_constants(model: Any) -> None:
    """Turn nodes that are constant tensors into initialisers, which can learn."""
    lifted = dict(_tensors(model))
    kept = [node for node in model.graph.node if node.op_type != "Constant" or node.output[0] not in lifted]
    known = {tensor.name for tensor in model.graph.initializer}
    for name, tensor in lifted.items():
        if name not in known:
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = name
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _free_batch(model: Any) -> None:
    """Let a graph of a fixed batch take any: its input's first size, and that of every reshape to it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in constants]
    if not images or not images[0].type.tensor_type.shape.dim:
        return
    first = images[0].type.tensor_type.shape.dim[0]
    fixed = first.dim_value
    if fixed <= 0:
        return
    for value in (*images, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    # what was inferred for the fixed batch
    del model.graph.value_info[:]
    tensors = dict(_tensors(model))
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in tensors:
            continue
        shape = numpy_helper.to_array(tensors[node.input[1]]).copy()
        if shape.size and shape[0] == fixed:
            shape[0] = 0  # as many as come in
            node.input[1] = f"{node.input[1]}/freed{index}"
            model.graph.initializer.append(numpy_helper.from_array(shape, node.input[1]))


def _without_sigmoid(model: Any, output: str) -> bool:
    """Take the sigmoid away that an output ends with, if nothing else depends on it; says whether it did."""
    producers = {name: node for node in model.graph.node for name in node.output}
    consumers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers[name] = consumers.get(name, 0) + 1
    returned = {value.name for value in model.graph.output}
    name = output
    while name in producers:
        node = producers[name]
        used = consumers.get(name, 0)
        if used != (0 if name == output else 1) or (name in returned and name != output):
            return False
        if node.op_type == "Sigmoid":
            node.op_type = "Identity"
            return True
        if node.op_type not in _MOVES:
            return False
        name = node.input[0]
    return False


def _converted(model: Any, path: str) -> Any:
    try:
        return onnx2torch().convert(model)
    except Exception as error:  # a converter's own words for what it cannot do
        fail(path, _one_line(error), "a graph that onnx2torch converts")


def _returned(model: Any) -> dict[str, tuple[int, int | None]]:
    """Where an output is among the results of the converted module: one for each node that gives any."""
    producers = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    nodes = list(dict.fromkeys(producers[value.name] for value in model.graph.output))
    places: dict[str, tuple[int, int | None]] = {}
    for value in model.graph.output:
        node = model.graph.node[producers[value.name]]
        part = list(node.output).index(value.name) if len(node.output) > 1 else None
        places[value.name] = nodes.index(producers[value.name]), part
    return places


def _weights(model: Any, graph: Any) -> dict[str, _Weight]:
    """The parameters of a converted graph by the names of the tensors that they came from.

    The converted graph calls one module per node, in the same order; a parameter is the tensor among the node's inputs
    that holds its values.
    """
    constants = {
        name: numpy_helper.to_array(tensor)
        for name, tensor in _tensors(model)
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    found: dict[str, _Weight] = {}
    products: set[str] = set()
    for node, call in zip(model.graph.node, calls, strict=True):
        given = [name for name in node.input if name in constants]
        _match(graph.get_submodule(call.target), given, constants, found)
        if node.op_type == "MatMul":
            products.update(node.output)
        if node.op_type == "MatMul" or (node.op_type == "Add" and products & set(node.input)):
            # a linear layer in two nodes: its matrix and its vector are no module's
            _match_loose(graph, call, given, constants, found)
    return found


def _match(
    module: nn.Module, names: Sequence[str], constants: dict[str, Any], found: dict[str, _Weight]
) -> None:
    left = list(names)
    for own, parameter in list(module.named_parameters()):
        values = parameter.detach().numpy()
        for name in left:
            transposed = not _same(values, constants[name])
            if transposed and not (values.ndim == 2 and _same(values.T, constants[name])):
                continue
            left.remove(name)
            known = found.setdefault(name, _Weight(parameter, transposed))
            if known.parameter is not parameter and known.transposed == transposed:
                # one tensor of several nodes stays one
                owner, _, attribute = own.rpartition(".")
                setattr(module.get_submodule(owner), attribute, known.parameter)
            break


def _match_loose(
    graph: Any, call: Any, names: Sequence[str], constants: dict[str, Any], found: dict[str, _Weight]
) -> None:
    container = graph.get_submodule(_INITIALIZERS)
    for argument in call.args:
        if getattr(argument, "op", "") != "get_attr":
            continue
        own = argument.target.rpartition(".")[2]
        values = getattr(container, own)
        for name in names:
            if (
                values.dim() == 0
                or isinstance(values, nn.Parameter)
                or not _same(values.numpy(), constants[name])
            ):
                continue
            parameter = found[name].parameter if name in found else nn.Parameter(values.clone())
            delattr(container, own)
            container.register_parameter(own, parameter)
            found.setdefault(name, _Weight(parameter, False))
            break


def _same(first: Any, second: Any) -> bool:
    return first.shape == second.shape and np.array_equal(first, second)


def _set_metadata(model: Any, key: str, value: str) -> None:
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    model.metadata_props.add(key=key, value=value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
