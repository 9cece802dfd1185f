"""What a network of another origin is given, and by which names it answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.teachers import CalledNetwork, ForeignTeacher, OnnxNetwork, TeacherDescription
from cdkd_ext.teachers.network import preprocessed


def described(**options):
    return TeacherDescription(kind="heatmap", input_size=(2, 3), **options)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color_order", ["rgb", "bgr"])
def test_crops_are_prepared_as_described(layout, color_order):
    crops = torch.randint(0, 256, (4, 3, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.1, -0.2, 0.3), (0.5, 2.0, 1.0)
    description = described(layout=layout, color_order=color_order, range=(-1, 1), mean=mean, std=std)
    expected = crops.numpy().astype(np.float64) / 127.5 - 1
    if color_order == "bgr":
        expected = expected[:, ::-1]
    expected = (expected - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    if layout == "NHWC":
        expected = expected.transpose(0, 2, 3, 1)
    found = preprocessed(crops, description)
    assert found.dtype == torch.float32 and found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_published_means_of_pixel_values():
    white = torch.full((1, 3, 2, 3), 255, dtype=torch.uint8)
    description = described(range=(0, 255), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    values = preprocessed(white, description)[0, :, 0, 0].tolist()
    assert values == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_a_module_is_frozen_and_asked_in_evaluation_mode():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Dropout(0.9)).train()
    network = CalledNetwork(module, described())
    crops = torch.full((2, 3, 2, 3), 200, dtype=torch.uint8)
    first, second = network(crops)["heatmap"], network(crops)["heatmap"]
    assert torch.equal(first, second) and not first.requires_grad
    assert not module.training and not any(value.requires_grad for value in module.parameters())


def test_tensors_are_named_in_the_order_of_the_description():
    outputs = {"offset": "b", "heatmap": "a"}
    network = CalledNetwork(lambda crops: [crops + 1, crops], described(outputs=outputs))
    crops = torch.zeros(1, 3, 2, 3, dtype=torch.uint8)
    assert network(crops)["b"].max() == 1 and network(crops)["a"].max() == 0
    with pytest.raises(TypeError, match="teacher: expected a callable that returns tensors, or a mapping"):
        CalledNetwork(lambda crops: 3, described())(crops)
    with pytest.raises(InputError, match=r"input_size: expected the .* of the crops, got None"):
        CalledNetwork(lambda crops: crops, TeacherDescription(kind="heatmap"))


def test_a_graph_is_read_and_bytes_stay_bytes(make_graph, tmp_path):
    from onnx import TensorProto, helper, save

    network = OnnxNetwork(OnnxFile(make_graph(size=(8, 12)), cpu=True), TeacherDescription(kind="heatmap"))
    assert (network.description.input, network.description.layout) == ("image", "NCHW")
    assert network.description.input_size == (8, 12)
    given = helper.make_tensor_value_info("x", TensorProto.INT32, ["batch", None, None, 3])
    made = helper.make_tensor_value_info("y", TensorProto.INT32, ["batch", None, None, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [given], [made])
    path = tmp_path / "same.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    file = OnnxFile(path, cpu=True)
    crops = torch.randint(0, 256, (2, 3, 2, 3), dtype=torch.uint8)
    answer = OnnxNetwork(file, described(range=(0, 255)))(crops)["y"]
    assert torch.equal(answer, crops.permute(0, 2, 3, 1).int())
    with pytest.raises(
        InputError, match=r"input_size of .*same\.onnx: expected \[height, width\], which the graph leaves"
    ):
        OnnxNetwork(file, TeacherDescription(kind="heatmap"))
    with pytest.raises(InputError, match=r"input of .*same\.onnx: expected one of x .*, got 'image'"):
        OnnxNetwork(file, described(input="image"))


@pytest.mark.parametrize(
    ("kind", "options", "fits"),
    [
        ("UINT8", {"range": (0, 255)}, True),
        ("INT8", {"range": (-128, 127)}, True),
        ("UINT8", {}, False),
        ("UINT8", {"range": (0, 255), "mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}, False),
        ("INT8", {"range": (0, 255)}, False),
        ("INT32", {"range": (0, 255)}, True),
        ("FLOAT", {}, True),
    ],
)
def test_pixels_have_to_fit_into_integers(tmp_path, kind, options, fits):
    from onnx import TensorProto, helper, save

    number = getattr(TensorProto, kind)
    given, made = (helper.make_tensor_value_info(name, number, ["batch", 3, 2, 3]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [given], [made])
    path = tmp_path / "same.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    description = described(layout="NCHW", **options)
    if fits:
        OnnxNetwork(OnnxFile(path, cpu=True), description)
        return
    with pytest.raises(InputError, match=r"range of .*same\.onnx: expected what fits u?int8"):
        OnnxNetwork(OnnxFile(path, cpu=True), description)


@pytest.mark.parametrize("batch", ["batch", 4])
def test_no_crops_have_no_rows_and_single_numbers_are_left_out(tmp_path, batch):
    from onnx import TensorProto, helper, save

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 2, 3])
    made = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3, 2, 3]),
        helper.make_tensor_value_info("top", TensorProto.FLOAT, []),
    ]
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
    ]
    path = tmp_path / "same.onnx"
    graph = helper.make_graph(nodes, "same", [given], made)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    network = OnnxNetwork(OnnxFile(path, cpu=True), described(layout="NCHW"))
    for count in (0, 1, 5):
        outputs = network(torch.full((count, 3, 2, 3), 255, dtype=torch.uint8))
        assert list(outputs) == ["y"] and outputs["y"].shape == (count, 3, 2, 3)
        assert (outputs["y"] == 1).all()


def test_features_lie_as_the_heatmaps_beside_them():
    """Of modules whose input and outputs have their channels in different places."""
    features = torch.arange(24.0)[None, :, None, None].expand(3, -1, 16, 16)
    maps = torch.zeros(3, 4, 16, 16)
    for layout, turned in (("NHWC", False), ("NCHW", True)):

        def network(crops, turned=turned):
            outputs = maps[: len(crops)], features[: len(crops)]
            return tuple(value.permute(0, 2, 3, 1) for value in outputs) if turned else outputs

        description = TeacherDescription(
            kind="heatmap",
            input_size=(64, 64),
            layout=layout,
            joints=("left_eye", "right_eye", "left_ear", "right_ear"),
            outputs={"heatmap": "heatmap", "feature": "feature"},
        )
        teacher = ForeignTeacher.of(network, description)
        assert (teacher.teacher_spec.feature_channels, teacher.teacher_spec.feature_size) == (24, (16, 16))
        said = teacher(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
        assert torch.equal(said.feature, features[:2])
