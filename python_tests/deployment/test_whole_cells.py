"""Maps of bytes that are enlarged by copying have the values that `Resize` gives them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cdkd_ext.deployment.whole_cells import copy_whole_cells

NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def enlarging(scales, *, after="scale", **options) -> onnx.ModelProto:
    """Bytes (N, 3, 4, 5) that are resized between a dequantiser and a quantiser."""
    place = ("scale", "zero")
    nodes = [
        helper.make_node("DequantizeLinear", ["bytes", *place], ["values"], name="before"),
        helper.make_node("Resize", ["values", "", "scales"], ["larger"], name="resize", **NEAREST | options),
        helper.make_node("QuantizeLinear", ["larger", after, "zero"], ["result"], name="after"),
    ]
    constants = {
        "scale": np.float32(0.5),
        "other": np.float32(0.25),
        "zero": np.uint8(3),
        "scales": np.array(scales, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "enlarging",
        [helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["batch", 3, 4, 5])],
        [helper.make_tensor_value_info("result", TensorProto.UINT8, ["batch", 3, "height", "width"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, count: int) -> np.ndarray:
    given = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"bytes": given})
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("factors", [(2, 2), (8, 8), (1, 3), (4, 1)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_bits_stay(factors: tuple[int, int], count: int) -> None:
    model = enlarging([1, 1, *factors])
    expected = run(model, count)
    copy_whole_cells(model)
    onnx.checker.check_model(model, full_check=True)
    assert operators(model) == ["Transpose", "Unsqueeze", "Expand", "Reshape", "Transpose"]
    np.testing.assert_array_equal(run(model, count), expected)
    assert expected.shape == (count, 3, 4 * factors[0], 5 * factors[1])


@pytest.mark.parametrize(
    "other",
    [
        {"scales": [1, 1, 1.5, 2]},
        {"scales": [1, 2, 2, 2]},
        {"scales": [1, 1, 2, 2], "after": "other"},
        {"scales": [1, 1, 2, 2], "mode": "linear"},
        {"scales": [1, 1, 2, 2], "nearest_mode": "ceil"},
        {"scales": [1, 1, 2, 2], "coordinate_transformation_mode": "align_corners"},
    ],
)
def test_what_does_something_else_is_left(other) -> None:
    model = enlarging(**other)
    before = model.SerializeToString(deterministic=True)
    copy_whole_cells(model)
    assert operators(model) == ["DequantizeLinear", "Resize", "QuantizeLinear"]
    assert len(model.SerializeToString(deterministic=True)) <= len(before)


def test_a_map_that_is_read_elsewhere_too_is_left() -> None:
    model = enlarging([1, 1, 2, 2])
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    model.graph.node.append(helper.make_node("Relu", ["larger"], ["seen"], name="reader"))
    copy_whole_cells(model)
    assert "Resize" in operators(model)


@pytest.mark.parametrize(("first", "last"), [(0, 2), (1, 3), (1, 2)])
def test_a_graph_s_own_input_and_output_are_left(first: int, last: int) -> None:
    model = enlarging([1, 1, 2, 2])
    nodes = list(model.graph.node)[first:last]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input[0].name, model.graph.output[0].name = nodes[0].input[0], nodes[-1].output[0]
    copy_whole_cells(model)
    assert operators(model) == [node.op_type for node in nodes]
