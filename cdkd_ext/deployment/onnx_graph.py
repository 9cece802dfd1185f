"""ONNX graphs of decoders."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from cdkd_ext.deployment.crop_decoder import CropDecoder, lowered

if TYPE_CHECKING:
    from onnx import ModelProto

# onnxruntime 1.14 and newer read both
OPSET = 18
_IR_VERSION = 8
# of what has operators that came later
_LATER_IR_VERSION = 10
_LATER_OPSET = 20
_OUTPUTS = ("keypoints", "scores")


def write_onnx(
    decoder: CropDecoder,
    path: str | os.PathLike[str],
    *,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a decoder as an ONNX file.

    The graph's input ``images`` is uint8 (batch, h, w, 3), its outputs are ``keypoints`` float32 (batch, J, 2) and ``scores``
    float32 (batch, J); a batch may have any size, 0 too.

    Args:
        decoder: in the type that it is to compute in.
        path: the file.
        opset: version of ONNX's operators.
        metadata: texts to write beside the graph.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
    """
    import onnx
    import onnxscript  # noqa: F401  the exporter's, whose own message would name no extra

    height, width = decoder.network.input_size
    with _quiet():
        exported = torch.onnx.export(
            lowered(decoder),
            (torch.zeros(2, height, width, 3, dtype=torch.uint8),),
            dynamo=True,
            input_names=["images"],
            output_names=list(_OUTPUTS),
            opset_version=opset,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    _name_batch(model)
    _share_matrices(model)
    _forget_sources(model)
    model.ir_version = _LATER_IR_VERSION if opset > _LATER_OPSET else _IR_VERSION
    set_metadata(model, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, os.fspath(path))


def set_metadata(model: ModelProto, metadata: Mapping[str, str]) -> None:
    """Write texts beside a graph, in place of what was there."""
    import onnx

    model.producer_name, model.producer_version = "cdkd_ext", ""
    model.domain = model.doc_string = ""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))


def _name_batch(model: ModelProto) -> None:
    """Give the open size its name: the exporter calls it by a symbol."""
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in info.type.tensor_type.shape.dim:
            if size.dim_param == symbol:
                size.dim_param = "batch"


def _share_matrices(model: ModelProto) -> None:
    """Multiply a batch by a matrix itself: the exporter makes a copy of it for each image."""
    graph = model.graph
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    copies = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Expand" and node.input[0] in matrices
    }
    for node in graph.node:
        if node.op_type == "MatMul":
            node.input[1] = copies.get(node.input[1], node.input[1])
    remove_unused(model)


def remove_unused(model: ModelProto) -> None:
    """Remove nodes that nothing reads, and constants of theirs."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.intersection(node.output):
            needed.update(node.input)
        else:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)


def _forget_sources(model: ModelProto) -> None:
    """Remove what the exporter writes about the code that it traced, files' paths on this machine among it."""
    graph = model.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for function in model.functions:
        function.doc_string = ""
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
