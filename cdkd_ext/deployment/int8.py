"""Graphs whose convolutions compute in integers of eight bits."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.deployment.onnx_graph import set_metadata
from cdkd_ext.deployment.whole_cells import copy_whole_cells

if TYPE_CHECKING:
    from onnx import GraphProto

_BATCH = 16
# SimCC's linear layers decide between neighbouring bins, which eight bits cannot: they lose as much as all convolutions
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# between convolutions in eight bits, too: each change of type costs what the integers save
_BETWEEN = ("Add", "Relu", "Resize", "MaxPool", "Concat")


def quantize(
    source: str | os.PathLike[str], target: str | os.PathLike[str], crops: npt.NDArray[np.uint8]
) -> None:
    """Write a float32 graph of `write_onnx` with its convolutions, and what lies between them, in int8.

    By onnxruntime's static quantisation. What follows the network's last convolution, the decoding for one, stays as it is.

    Args:
        source: the graph.
        target: the new file.
        crops: RGB uint8 (N, h, w, 3) whose activations decide the ranges.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    metadata = {entry.key: entry.value for entry in onnx.load(os.fspath(source)).metadata_props}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        # batch norms go into the convolutions first
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(os.fspath(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            os.fspath(target),
            _Reader(crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_CONVOLUTIONS, *_BETWEEN],
            nodes_to_quantize=_before_convolutions(onnx.load(str(prepared)).graph),
            per_channel=True,
            # unsigned, so that 0 is the lowest value after a ReLU: only then does onnxruntime fold it into the convolution
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # to 64: without VNNI, products of 255 and 127 saturate when two of them are added
            reduce_range=True,
        )
    model = onnx.load(os.fspath(target))
    copy_whole_cells(model)
    set_metadata(model, metadata)
    onnx.save(model, os.fspath(target))


def _before_convolutions(graph: GraphProto) -> list[str]:
    """Names of the convolutions and of all that one of them follows."""
    names, needed = [], set[str]()
    for node in reversed(graph.node):
        if node.op_type in _CONVOLUTIONS or needed.intersection(node.output):
            names.append(node.name)
            needed.update(node.input)
    return names


class _Reader:
    """Crops in batches, as onnxruntime's calibration asks for them."""

    def __init__(self, crops: npt.NDArray[np.uint8]) -> None:
        self._batches = (crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without hints at a pre-processing that has been done."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
