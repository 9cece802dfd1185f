"""Networks in files at another size of their input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from cdkd_ext.adaptation import AdaptableModule, adapt, load_adaptable
from cdkd_ext.adaptation.input_size import write_with_input_size
from cdkd_ext.checkpoints import save_model
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.teachers import TeacherDescription, TeacherOptions
from python_tests.adaptation.conftest import (
    DESCRIPTION,
    SIZE,
    SmallNetwork,
    convolution,
    write_model,
    write_pose_network,
)

HALF = SIZE // 2


def noise(size, channels_last=False):
    shape = (2, size, size, 3) if channels_last else (2, 3, size, size)
    return np.random.default_rng(0).random(shape, np.float32)


def weights_of(*names):
    generator = np.random.default_rng(1)
    return {
        f"{name}.{kind}": generator.normal(0, 0.2, (4, 3, 3, 3) if kind == "weight" else 4).astype(np.float32)
        for name in names
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("size", [HALF, 96])
@pytest.mark.parametrize("batch", ["batch", 1])
def test_the_same_weights_see_crops_of_another_size(size, batch, tmp_path):
    torch.manual_seed(0)
    network = SmallNetwork()
    source = write_pose_network(tmp_path / "network.onnx", network, batch=batch)
    write_with_input_size(source, tmp_path / "resized.onnx", size, DESCRIPTION)
    file, images = OnnxFile(tmp_path / "resized.onnx", cpu=True), noise(size)
    assert file.inputs["image"].shape == (None if batch == "batch" else 1, 3, size, size)
    assert file.outputs["heatmap"].shape[1:] == (16, size // 4, size // 4)
    for output in onnx.load(tmp_path / "resized.onnx").graph.output:
        rows = output.type.tensor_type.shape.dim[0]
        assert (rows.dim_param or rows.dim_value) == batch
    images = images if batch == "batch" else images[:1]
    with torch.no_grad():
        wanted = network.double()(torch.from_numpy(images).double())
    given = file({"image": images})
    np.testing.assert_allclose(given["heatmap"], wanted["heatmap"].sigmoid(), atol=1e-5)
    np.testing.assert_allclose(given["center"], wanted["center"], atol=1e-5)


@pytest.mark.parametrize("constant", ["initializer", "node"])
def test_sizes_in_the_graph_follow(constant, tmp_path):
    """Maps that are enlarged to a size, flattened and folded up again, and a constant that only looks like a size."""
    weights = {**weights_of("first"), "half": np.array([16.0], np.float32)}
    sizes = {
        "large": np.array([1, 4, SIZE, SIZE]),
        "flat": np.array([0, 4, SIZE * SIZE]),
        "folded": np.array([-1, 4, SIZE, SIZE]),
    }
    nodes = [
        convolution("first", "image", weights, strides=[2, 2]),
        helper.make_node("Resize", ["first", "", "", "large"], ["up"], mode="nearest"),
        helper.make_node("Reshape", ["up", "flat"], ["rows"]),
        helper.make_node("Reshape", ["rows", "folded"], ["planes"]),
        helper.make_node("Mul", ["planes", "half"], ["heatmap"]),
    ]
    if constant == "node":
        tensors = [numpy_helper.from_array(value, name) for name, value in sizes.items()]
        nodes = [*(helper.make_node("Constant", [], [one.name], value=one) for one in tensors), *nodes]
    else:
        weights |= sizes
    source = write_model(tmp_path / "a.onnx", nodes, weights, {"heatmap": [4, SIZE, SIZE]}, batch=1)
    description = TeacherDescription(kind="heatmap", joints=["a", "b", "c", "d"])
    write_with_input_size(source, tmp_path / "b.onnx", HALF, description)
    image = noise(SIZE)[:1]
    image[:] = image.mean((2, 3), keepdims=True)
    large, small = (
        OnnxFile(tmp_path / f"{name}.onnx", cpu=True)({"image": image[:, :, :side, :side]})["heatmap"]
        for name, side in (("a", SIZE), ("b", HALF))
    )
    assert small.shape == (1, 4, HALF, HALF)
    # away from the edges a plain image looks the same at every size
    np.testing.assert_allclose(small[:, :, 8, 8], large[:, :, 8, 8], rtol=1e-6)
    kept = {tensor.name: tensor for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(kept["half"]), [16.0])


def test_images_of_channels_last(tmp_path):
    weights = weights_of("first")
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        convolution("first", "planes", weights, strides=[2, 2]),
        helper.make_node("Transpose", ["first"], ["heatmap"], perm=[0, 2, 3, 1]),
    ]
    source = write_model(tmp_path / "a.onnx", nodes, weights, {"heatmap": [HALF, HALF, 4]})
    model = onnx.load(source)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (SIZE, SIZE, 3), strict=True):
        dim.dim_value = size
    onnx.save(model, source)
    description = TeacherDescription(kind="heatmap", joints=["a", "b", "c", "d"])
    write_with_input_size(source, tmp_path / "b.onnx", HALF, description)
    file = OnnxFile(tmp_path / "b.onnx", cpu=True)
    assert file({"image": noise(HALF, channels_last=True)})["heatmap"].shape == (2, HALF // 2, HALF // 2, 4)


def test_what_has_no_other_size_is_refused(pose_file, tmp_path):
    options = TeacherOptions()
    with pytest.raises(
        InputError, match=r"input_size of .*network.onnx: output heatmap: .* such as a multiple"
    ):
        load_adaptable(str(pose_file), options, 30)
    with pytest.raises(InputError, match="input_size: expected a positive number of pixels, got -32"):
        load_adaptable(str(pose_file), options, -32)
    # a matrix that multiplies every pixel
    weights = {**weights_of("first"), "matrix": np.ones((4 * HALF * HALF, 8), np.float32)}
    nodes = [
        convolution("first", "image", weights, strides=[2, 2]),
        helper.make_node("Flatten", ["first"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["keypoints"]),
    ]
    source = write_model(tmp_path / "a.onnx", nodes, weights, {"keypoints": [8]})
    description = TeacherDescription(kind="heatmap", joints=["a", "b", "c", "d"])
    with pytest.raises(InputError, match=rf"got 3x{HALF}x{HALF}: "):
        write_with_input_size(source, tmp_path / "b.onnx", HALF, description)
    assert not (tmp_path / "b.onnx").exists()
    (tmp_path / "keypoints.yaml").write_text(
        "file: a.onnx\nkind: keypoints\noutputs: {keypoints: keypoints}\njoints: [a, b, c, d]\n"
    )
    with pytest.raises(InputError, match=f"input_size: .* got {HALF} for a network of keypoints"):
        load_adaptable(str(tmp_path / "keypoints.yaml"), options, HALF)
    ours = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=16, joints=MPII_JOINTS)
    save_model(ours, tmp_path / "ours.safetensors")
    with pytest.raises(InputError, match="input_size: expected nothing for a network of this package"):
        load_adaptable(str(tmp_path / "ours.safetensors"), options, HALF)


def test_an_adaptation_makes_the_file_smaller(config, tmp_path, capsys):
    config = replace(config, input_size=HALF, steps=120, check_every=60)
    report = adapt(config)
    file = OnnxFile(tmp_path / "run/adapted.onnx", cpu=True)
    assert file.inputs["image"].shape[2:] == (HALF, HALF)
    assert json.loads(file.metadata["cdkd_ext.adapted"])["input_size"] == HALF
    assert f"input {HALF}x{HALF}" in capsys.readouterr().out
    assert [one.height for one in report.before] == [16, 24, None]
    # the teacher sees what the file takes, which is twice as large
    assert report.before[-1].agreement < 90
    assert report.after[0].agreement > report.before[0].agreement + 3
    shorter = replace(config, output=str(tmp_path / "short"), steps=60)
    adapt(shorter)
    assert adapt(replace(shorter, steps=120), resume=True).after == report.after
    with pytest.raises(InputError, match="input_size: expected nothing for a network of one's own"):
        adapt(config, AdaptableModule(SmallNetwork(), DESCRIPTION))
