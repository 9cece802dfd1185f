"""In files of eight bits all convolutions compute in integers, and what decodes does not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from cdkd_ext.deployment import CropDecoder, write_onnx
from cdkd_ext.deployment.export import described
from cdkd_ext.deployment.int8 import quantize
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import create_model

CROPS = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(
    scope="module",
    params=[
        "lowres_small simcc",
        "lowres_small dark",
        pytest.param("hrnet_w8_small heatmap", marks=pytest.mark.long),
        pytest.param("hrnet_w8_small rle", marks=pytest.mark.long),
    ],
)
def graphs(request, tmp_path_factory):
    """The float32 graph and the one of eight bits that was made of it."""
    name, head = request.param.split()
    options = {"head": "heatmap", "decoding": "dark"} if head == "dark" else {"head": head}
    network = create_model(
        name, input_size=(32, 32), num_joints=len(COCO_JOINTS), joints=COCO_JOINTS, **options
    )
    folder = tmp_path_factory.mktemp("graphs")
    source, target = folder / "whole.onnx", folder / "small.onnx"
    metadata = described(network.spec, precision="float32", flip_test=False)
    write_onnx(CropDecoder(network.eval()), source, metadata=metadata)
    quantize(source, target, CROPS)
    return source, target


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def as_run(path):
    """What onnxruntime makes of a graph before it runs it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".run.onnx"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return operators(path.with_suffix(".run.onnx"))


def test_every_convolution_runs_in_integers(graphs):
    source, target = graphs
    run = as_run(target)
    assert run["QLinearConv"] == operators(source)["Conv"] > 20
    assert run["Conv"] + run["FusedConv"] == 0
    # before the last convolution nothing looks for a cell's nearest neighbour
    assert run["Resize"] == decoding(target)["Resize"] < operators(source)["Resize"]
    # sums of branches and shortcuts as well: between convolutions numbers do not become floats and integers again
    assert run["QLinearAdd"] > 5 and run["DequantizeLinear"] < 0.3 * run["QLinearConv"]


def test_no_processor_saturates_sums_of_two_products(graphs):
    weights = [onnx.numpy_helper.to_array(held) for held in onnx.load(graphs[1]).graph.initializer]
    kernels = [held for held in weights if held.dtype == np.int8 and held.ndim == 4]
    assert len(kernels) > 20
    assert (
        max(2 * 255 * int(np.abs(kernel.astype(int)).max()) for kernel in kernels) <= np.iinfo(np.int16).max
    )


def decoding(path):
    """Operators that no convolution follows."""
    needed, kinds = set(), Counter()
    for node in reversed(onnx.load(path).graph.node):
        if node.op_type == "Conv" or needed & set(node.output):
            needed |= set(node.input)
        else:
            kinds[node.op_type] += 1
    return kinds


def test_what_decodes_stays_as_it_was(graphs):
    source, target = graphs
    before, now = (decoding(path) for path in graphs)
    # of what the last convolutions give
    now["QuantizeLinear"] -= now["DequantizeLinear"]
    assert now.pop("DequantizeLinear") <= 4 and not now.pop("QuantizeLinear")
    assert now == before and sum(now.values()) > 3
    assert onnx.load(source).metadata_props == onnx.load(target).metadata_props
