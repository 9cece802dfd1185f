"""An ONNX file's network at another size of its input: the same weights, and a cost that falls with the square."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from cdkd_ext.errors import InputError, check, fail, one_line
from cdkd_ext.files import replacing
from cdkd_ext.onnx_file import OnnxFile, TensorInfo
from cdkd_ext.teachers import TeacherDescription
from cdkd_ext.teachers.network import OnnxNetwork
from cdkd_ext.teachers.readers import input_size

# of Resize: X, roi, scales, sizes
_SIZES = 3


def write_with_input_size(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    height: int,
    description: TeacherDescription,
) -> None:
    """Write a network of convolutions for crops of another size; its weights, and all names, stay what they are.

    Sizes that the graph has as constants (of Reshape, and of Resize) follow the input's. The file appears once onnxruntime
    has run it, and every output was a map that is as much smaller or larger as the input, or of the size that it had.

    Args:
        source: an ONNX file whose input has a fixed size.
        target: the new file.
        height: of the new input in pixels; the width keeps its proportion.
        description: of the file.

    Raises:
        InputError: the height is none that the network's strides divide, or a layer knows the size of its input.

    Example:
        ```python
        path, description = TeacherFile("movenet_lightning.onnx").described()
        write_with_input_size(path, "movenet_lightning_96.onnx", 96, description)
        ```
    """
    check(height > 0, "input_size", height, "a positive number of pixels")
    file = OnnxFile(source, cpu=True)
    described = OnnxNetwork(file, description).description
    old = input_size(described)
    width = old[1] * height / old[0]
    check(width == int(width), "input_size", height, f"a height in proportion to {old[0]}x{old[1]}")
    assert described.input is not None
    info = file.inputs[described.input]
    shapes = [
        (info.shape[0], 3, *size) if described.layout == "NCHW" else (info.shape[0], *size, 3)
        for size in (old, (height, int(width)))
    ]
    model = onnx.load(str(source))
    _change(model, info.name, shapes[1])
    with replacing(target) as temporary:
        onnx.save(model, str(temporary))
        _compare(file, temporary, info, shapes, height / old[0])


def _change(model: Any, name: str, shape: Sequence[int | None]) -> None:
    """Give the graph's input a shape, and its constants that are sizes what follows from it."""
    before = _inferred(model)
    graph = model.graph
    (images,) = (value for value in graph.input if value.name == name)
    for dim, size in zip(images.type.tensor_type.shape.dim, shape, strict=True):
        if size is not None:
            dim.dim_value = size
    open_sizes = {
        output.name: [dim.dim_param for dim in output.type.tensor_type.shape.dim] for output in graph.output
    }
    for output in graph.output:
        # they follow from the nodes
        output.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    after = _inferred(model)
    for index, node in enumerate(graph.node):
        place = {"Reshape": 1, "Resize": _SIZES}.get(node.op_type)
        if place is None or len(node.input) <= place or node.input[place] not in constants:
            continue
        values = numpy_helper.to_array(constants[node.input[place]]).tolist()
        old, new = (known.get(node.input[0], ()) for known in (before, after))
        if old == new or not (old and new and values):
            continue
        follow = _resized if node.op_type == "Resize" else _reshaped
        # a constant of its own, since another node may have the same one for something else
        node.input[place] = f"{node.input[place]}/resized{index}"
        sizes = np.array(follow(values, old, new), np.int64)
        graph.initializer.append(numpy_helper.from_array(sizes, node.input[place]))
        after = _inferred(model)
    for output, inferred in zip(
        graph.output, onnx.shape_inference.infer_shapes(model).graph.output, strict=True
    ):
        output.CopyFrom(inferred)
        # what is open keeps its name, such as "batch"
        for dim, own in zip(output.type.tensor_type.shape.dim, open_sizes[output.name], strict=False):
            if own and not dim.dim_value:
                dim.dim_param = own


def _resized(sizes: list[int], old: tuple[int, ...], new: tuple[int, ...]) -> list[int]:
    """The sizes of maps that are enlarged as before, from those of what comes in before and now."""
    return [
        size * now // before if before else size for size, before, now in zip(sizes, old, new, strict=True)
    ]


def _reshaped(shape: list[int], old: tuple[int, ...], new: tuple[int, ...]) -> list[int]:
    """A shape in which changed sizes stand: one by one, their product, or two as factors of one."""
    changed = [(before, now) for before, now in zip(old, new, strict=True) if before != now]
    area, other = (prod(side) for side in zip(*changed, strict=True))
    sizes = {**dict(changed), area: other}
    result = [sizes.get(size, size) for size in shape]
    for axis in range(len(shape) - 1):
        product = shape[axis] * shape[axis + 1]
        if product in sizes and result[axis : axis + 2] == shape[axis : axis + 2]:
            ratio = math.sqrt(sizes[product] / product)
            result[axis : axis + 2] = [round(size * ratio) for size in shape[axis : axis + 2]]
    return result


def _inferred(model: Any) -> dict[str, tuple[int, ...]]:
    """The sizes of a graph's values, as far as they follow from its input; an open one, such as the batch, is 0."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _compare(
    file: OnnxFile, temporary: Path, info: TensorInfo, shapes: Sequence[Sequence[int | None]], ratio: float
) -> None:
    """Run a file before and after, and compare the sizes of what it returns."""
    argument = f"input_size of {file.path}"
    expected = "a size that every stride of a network of convolutions divides, such as a multiple of 32"
    # open sizes, the batch's, are 2
    images = [np.zeros([size or 2 for size in shape], info.dtype) for shape in shapes]
    before = file({info.name: images[0]})
    try:
        after = OnnxFile(temporary, cpu=True)({info.name: images[1]})
    except InputError as error:
        reason = one_line(error).partition(" got ")[2].replace(str(temporary), "the file")
        fail(argument, f"{'x'.join(str(size) for size in shapes[1][1:])}: {reason}", expected)
    for name, values in before.items():
        old, got = values.shape, after[name].shape
        scaled = [
            tuple(size * ratio if axis in axes else size for axis, size in enumerate(old))
            for axes in ((), (2, 3), (1, 2))
        ]
        check(got in scaled, f"{argument}: output {name}", got, f"maps {ratio:g} times as large; {expected}")
