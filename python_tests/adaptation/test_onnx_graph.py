"""ONNX graphs as modules that learn, and back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from cdkd_ext.adaptation import TrainableGraph
from cdkd_ext.errors import InputError
from cdkd_ext.onnx_file import OnnxFile
from python_tests.adaptation.conftest import SIZE, write_model

IMAGES = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def _changed(graph, scale=0.1):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in graph.weights.values():
            weight += scale * torch.randn(weight.shape, generator=generator)
    return graph


@pytest.mark.parametrize("batch", ["batch", 1, 2, 16])
def test_it_gives_the_files_outputs_for_any_batch(small_file, batch):
    graph = TrainableGraph(small_file(batch=batch))
    graph.check(IMAGES)
    assert [tuple(value.shape) for value in graph(IMAGES).values()] == [(3, 16, 16, 16), (3, 2)]
    whole = graph(IMAGES)["center"]
    assert torch.allclose(whole[1:2], graph(IMAGES[1:2])["center"], atol=1e-6)


def test_a_heatmap_comes_without_its_sigmoid(small_file):
    path = small_file()
    graph = TrainableGraph(path, before_sigmoid=["heatmap", "center"])
    # there is none before the other output
    assert graph.logits == {"heatmap"}
    assert graph(IMAGES)["heatmap"].min() < 0
    plain = TrainableGraph(path)
    assert torch.allclose(graph(IMAGES)["heatmap"].sigmoid(), plain(IMAGES)["heatmap"], atol=1e-6)
    graph.check(IMAGES)


def _with_maps(tmp_path, *nodes, outputs=None):
    """A file of a convolution to `maps` and some nodes behind it, one of which gives `heatmap`."""
    weights = {"w": np.ones((4, 3, 1, 1), np.float32)}
    first = helper.make_node("Conv", ["image", "w"], ["maps"])
    returned = outputs or {"heatmap": [None, None, None]}
    return write_model(tmp_path / "maps.onnx", [first, *nodes], weights, returned)


def test_a_sigmoid_that_others_read_stays(tmp_path):
    sigmoid = helper.make_node("Sigmoid", ["maps"], ["p"])
    move = helper.make_node("Transpose", ["p"], ["heatmap"], perm=[0, 2, 3, 1])
    other = helper.make_node("ReduceMean", ["p"], ["mean"], axes=[2, 3], keepdims=0)
    alone = TrainableGraph(_with_maps(tmp_path, sigmoid, move), before_sigmoid=["heatmap"])
    assert alone.logits == {"heatmap"}
    outputs = {"heatmap": [None, None, None], "mean": [None]}
    both = TrainableGraph(
        _with_maps(tmp_path, sigmoid, move, other, outputs=outputs), before_sigmoid=["heatmap"]
    )
    assert both.logits == set()
    both.check(IMAGES)


def _described(path):
    model = onnx.load(path)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    del model.graph.initializer[:], model.metadata_props[:]
    return model.SerializeToString(), tensors


def test_saving_changes_the_weights_and_nothing_else(small_file, tmp_path):
    path = small_file(batch=1)
    graph = TrainableGraph(path, before_sigmoid=["heatmap"])
    graph.save(tmp_path / "same.onnx", IMAGES)
    _changed(graph).save(tmp_path / "other.onnx", IMAGES, metadata={"size": "32"})
    before, same, other = (
        _described(tmp_path / name) for name in ("network.onnx", "same.onnx", "other.onnx")
    )
    assert before[0] == same[0] == other[0]
    for name, value in before[1].items():
        assert np.array_equal(value, same[1][name])
        assert np.array_equal(value, other[1][name]) == (name == "flat"), name
        assert value.dtype == other[1][name].dtype
    file = OnnxFile(tmp_path / "other.onnx", cpu=True)
    assert file.metadata == {"size": "32"}
    wanted = graph(IMAGES[:1])
    given = file({"image": IMAGES[:1].numpy()})
    assert np.allclose(given["heatmap"], wanted["heatmap"].sigmoid().detach(), atol=1e-5)
    assert np.allclose(given["center"], wanted["center"].detach(), atol=1e-5)


def _linear_file(tmp_path):
    """All the ways in which a graph holds a linear layer, and a weight that two of them share."""
    rng = np.random.default_rng(0)
    square = {name: rng.normal(size=(3, 3)).astype(np.float32) for name in ("a", "b", "c", "d")}
    vectors = {name: rng.normal(size=3).astype(np.float32) for name in ("va", "vc")}
    nodes = [
        helper.make_node(
            "Constant", [], ["constant"], value=numpy_helper.from_array(square.pop("d"), "constant")
        ),
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["x0"]),
        helper.make_node("Gemm", ["x0", "a", "va"], ["x1"]),
        helper.make_node("Gemm", ["x1", "b", "va"], ["x2"], transB=1),
        helper.make_node("MatMul", ["x2", "c"], ["x3"]),
        helper.make_node("Add", ["vc", "x3"], ["x4"]),
        helper.make_node("MatMul", ["x4", "constant"], ["x5"]),
        helper.make_node("Gemm", ["x5", "b", "va"], ["y"], transB=1),
    ]
    return write_model(tmp_path / "linear.onnx", nodes, square | vectors, {"y": [3]})


def test_linear_layers_of_every_spelling_learn_and_are_written_back(tmp_path):
    graph = TrainableGraph(_linear_file(tmp_path))
    assert set(graph.weights) == {"a", "b", "c", "va", "vc", "constant"}
    graph.check(IMAGES)
    graph(IMAGES)["y"].square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in graph.weights.values())
    _changed(graph, 0.5).save(tmp_path / "changed.onnx", IMAGES)
    given = OnnxFile(tmp_path / "changed.onnx", cpu=True)({"image": IMAGES.numpy()})["y"]
    assert np.allclose(given, graph(IMAGES)["y"].detach(), rtol=1e-4)


def test_batch_normalisation_keeps_its_statistics(tmp_path):
    rng = np.random.default_rng(0)
    values = {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
    node = helper.make_node("BatchNormalization", ["image", *values], ["y"])
    graph = TrainableGraph(write_model(tmp_path / "norm.onnx", [node], values, {"y": [3, SIZE, SIZE]}))
    assert set(graph.weights) == {"scale", "bias"}
    graph.train()
    assert torch.equal(graph(IMAGES[:1])["y"], graph(IMAGES)["y"][:1])
    _changed(graph).save(tmp_path / "changed.onnx", IMAGES)


def test_a_file_that_says_something_else_does_not_appear(small_file, tmp_path):
    graph = TrainableGraph(small_file())
    # as if a weight had not been found in the graph
    lost = graph._weights.pop("center.bias").parameter
    with torch.no_grad():
        lost += 1
    with pytest.raises(InputError, match=r"other\.onnx: output center: expected at most 0\.001"):
        graph.save(tmp_path / "other.onnx", IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_weights_that_are_not_finite_are_not_written(small_file, tmp_path):
    graph = TrainableGraph(small_file())
    with torch.no_grad():
        graph.weights["maps.bias"][0] = float("nan")
    with pytest.raises(InputError, match=r"weight maps\.bias: expected finite numbers, got infinite or NaN"):
        graph.save(tmp_path / "other.onnx", IMAGES)
    assert not (tmp_path / "other.onnx").exists()


def _quantised():
    values = {"w": np.ones((4, 3, 1, 1), np.int8), "s": np.float32(0.1), "z": np.int8(0)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["real"]),
        helper.make_node("Conv", ["image", "real"], ["y"]),
    ]
    return nodes, {name: np.asarray(value) for name, value in values.items()}


def _half():
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    return nodes, {"w": np.ones((4, 3, 1, 1), np.float16)}


def _unknown():
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["h"]),
        helper.make_node("Hardmax", ["h"], ["g"], axis=1),
        helper.make_node("Hardmax", ["g"], ["y"], axis=1),
    ]
    return nodes, {"w": np.ones((4, 3, 1, 1), np.float32)}


def _nothing():
    return [helper.make_node("Relu", ["image"], ["y"])], {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_quantised, r"expected the float32 network.*got quantised weights \(DequantizeLinear\)"),
        (_half, r"expected weights of FLOAT \(float32\), got w of FLOAT16"),
        (_unknown, "expected operators that onnx2torch converts.*got the operators Hardmax$"),
        (_nothing, "got no weights of float32"),
    ],
)
def test_what_cannot_learn_is_refused(tmp_path, make, message):
    nodes, weights = make()
    path = write_model(tmp_path / "bad.onnx", nodes, weights, {"y": [None, None, None]})
    with pytest.raises(InputError, match=message) as caught:
        TrainableGraph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_batch_that_cannot_be_freed_is_named(tmp_path):
    # two numbers of one image become those of a batch
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "m"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "shape": np.array([4, 1]),
        "m": np.ones((1, 1), np.float32),
    }
    path = write_model(tmp_path / "fixed.onnx", nodes, weights, {"y": [1]}, batch=1)
    graph = TrainableGraph(path)
    with pytest.raises(InputError, match="for any number of images; export it with an open batch size"):
        graph.check(IMAGES)


def test_importing_the_converter_leaves_no_torchvision_behind(run_without):
    code = """
from cdkd_ext.adaptation.onnx_modules import onnx2torch
onnx2torch().convert
assert not [name for name in sys.modules if name.startswith("torchvision")]
from onnx2torch.node_converters import nms
try:
    nms.torchvision.ops.nms(None)
except ValueError as error:
    print(error)
"""
    done = run_without(["torchvision"], code)
    assert done.returncode == 0, done.stderr
    assert "got no package torchvision that fits this torch" in done.stdout


def test_without_the_converter_its_extra_is_named(run_without):
    code = "from cdkd_ext.cli import main; sys.exit(main(['adapt', 'network.onnx']))"
    done = run_without(["onnx"], code)
    assert done.returncode == 2
    assert done.stderr == "cdkd: onnx is missing; `cdkd adapt` needs `pip install 'cdkd-ext[adapt]'`\n"
