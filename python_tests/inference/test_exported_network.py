"""Metadata of exported files, and other files that a predictor can load."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.inference import ExportedNetwork, Predictor
from cdkd_ext.inference.exported_network import read_metadata
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.teachers import TeacherFile, TeacherOptions

METADATA = {
    "cdkd_ext": "0.1.0",
    "model": json.dumps({"name": "hrnet_w32"}),
    "joints": json.dumps(COCO_JOINTS.to_category()),
    "input_size": "[32, 48]",
    "padding": "1.5",
    "resample": "area",
    "score_threshold": "0.02",
    "flip_test": "true",
    "precision": "float32",
}


def test_metadata_is_read():
    read = read_metadata(METADATA, "a.onnx")
    assert read["joints"] == COCO_JOINTS and read["input_size"] == (32, 48)
    assert read["padding"] == 1.5 and read["flip_test"] is True and read["license"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": "{"}, "a.onnx: metadata: expected what `cdkd export` writes, got JSONDecodeError"),
        ({"input_size": "32"}, "a.onnx: metadata: expected what `cdkd export` writes, got TypeError"),
        ({"padding": None}, "a.onnx: metadata: expected what `cdkd export` writes, got KeyError 'padding'"),
        ({"cdkd_ext": None}, "a.onnx: expected one of `cdkd export`, got a file without the joints"),
    ],
)
def test_damaged_metadata_is_named(change, message):
    damaged = {name: value for name, value in (METADATA | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        read_metadata(damaged, "a.onnx")


@pytest.fixture
def written(tmp_path):
    """A file with the interface of an exported one: every joint is where the first pixel's colours say."""
    from onnx import TensorProto, helper, numpy_helper, save

    pick = {"starts": [0, 0, 0], "ends": [1, 1, 2], "axes": [1, 2, 3]}
    constants = [numpy_helper.from_array(np.array(value), name) for name, value in pick.items()]
    constants.append(numpy_helper.from_array(np.array([1, 17, 1]), "times"))
    constants.append(numpy_helper.from_array(np.array([1]), "first"))
    constants.append(numpy_helper.from_array(np.array([-1]), "last"))
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["colors"]),
        helper.make_node("Squeeze", ["colors", "first"], ["row"]),
        helper.make_node("Cast", ["row"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Tile", ["numbers", "times"], ["keypoints"]),
        helper.make_node("ReduceMean", ["keypoints"], ["scores"], axes=[-1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 32, 48, 3])],
        [
            helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, ["batch", 17, 2]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 17]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, METADATA)
    save(model, tmp_path / "colors.onnx")
    return tmp_path / "colors.onnx"


def test_crop_pixels_become_image_pixels(written):
    predictor = Predictor.load(written)
    assert isinstance(predictor.network, ExportedNetwork)
    image = np.zeros((60, 90, 3), np.uint8)
    image[..., 0], image[..., 1] = 24, 16
    # the crop's middle, whatever the box
    poses = predictor(image, [(30, 20, 24, 16), (36, 20, 12, 16)])
    np.testing.assert_allclose(poses.keypoints[0, 0], (42, 28), atol=1e-4)
    np.testing.assert_allclose(poses.keypoints[1, 3], (42, 28), atol=1e-4)


def test_a_file_flips_as_it_was_exported(written):
    assert Predictor.load(written, flip_test=True).network.flip_test
    expected = (
        r"flip_test: expected True, as .*colors.onnx was exported \(`cdkd export --flip_test`\), got False"
    )
    with pytest.raises(InputError, match=expected):
        Predictor.load(written, flip_test=False)
    network = Predictor.load(written).network
    with pytest.raises(InputError, match="flip_test: expected nothing"):
        Predictor(network, flip_test=True)


def test_a_foreign_network_predicts_with_its_own_joints(write_teacher, tmp_path):
    write_teacher(tmp_path / "teacher.onnx", joints=17)
    (tmp_path / "teacher.yaml").write_text("file: teacher.onnx\nkind: heatmap\npadding: 1.1\n")
    predictor = Predictor.load(tmp_path / "teacher.yaml", flip_test=False)
    assert predictor.joints == COCO_JOINTS and predictor.padding == 1.1
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    side = 64 / 1.1
    poses = predictor(image, [(32 - side / 2, 32 - side / 2, side, side)])
    teacher = TeacherFile(str(tmp_path / "teacher.yaml"), options=TeacherOptions(flip=False)).load("cpu")
    said = teacher.predict(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_allclose(poses.keypoints, said.keypoints.numpy(), atol=1e-3)
    np.testing.assert_allclose(poses.scores, said.confidence.numpy(), atol=1e-6)


def test_a_file_of_nobody_known_is_named(make_graph):
    path = make_graph(output="something")
    with pytest.raises(InputError, match=r"dots\.onnx"):
        Predictor.load(path)
    assert OnnxFile(path, cpu=True).metadata == {}
