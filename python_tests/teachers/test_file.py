"""Teachers as files: ONNX files, descriptions and presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from cdkd_ext.checkpoints import save_model
from cdkd_ext.data import DataConfig
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS, JointSet
from cdkd_ext.models import create_model
from cdkd_ext.teachers import ForeignTeacher, TeacherDescription, TeacherFile, TeacherOptions, list_presets
from cdkd_ext.teachers.presets import read_preset, recognized_preset

NAMES = ["nose", "left_eye", "right_eye"]
DESCRIBED = {"file": "dots.onnx", "kind": "heatmap", "joints": NAMES}


def described(folder, **fields):
    path = folder / "teacher.yaml"
    path.write_text(yaml.safe_dump({**DESCRIBED, **fields}))
    return TeacherFile(str(path))


@pytest.mark.parametrize("name", list_presets())
def test_presets_are_descriptions_of_a_dozen_lines(name):
    assert isinstance(TeacherDescription.from_dict(read_preset(name), name), TeacherDescription)


def test_a_description_names_its_file_and_may_change_a_preset(make_graph, tmp_path):
    make_graph()
    teacher = described(tmp_path).load()
    assert isinstance(teacher, ForeignTeacher)
    assert teacher.teacher_spec.joints == JointSet.from_category({"keypoints": NAMES})
    changed = described(tmp_path, preset="movenet", outputs={"heatmap": "heatmap"}, range=[0, 1]).load()
    assert changed.description.offset_center == 0.5 and changed.description.range == (0, 1)
    assert described(tmp_path, padding=1.5).padding() == 1.5


def test_an_onnx_file_takes_a_preset_by_name_or_by_its_outputs(make_graph, tmp_path):
    path = str(make_graph())
    with pytest.raises(InputError, match=r"^preset: expected one of .* with the outputs heatmap"):
        TeacherFile(path).load()
    # three joints are not COCO's
    with pytest.raises(
        InputError,
        match="joints: expected the names of the joints, in its order, got nothing for a network of 3",
    ):
        TeacherFile(path, options=TeacherOptions(preset="hrnet")).load()
    assert recognized_preset(["simcc_x", "simcc_y"], "x.onnx") == "rtmpose"
    assert recognized_preset(["heatmap", "center", "regress", "offset", "features"], "x.onnx") == "movenet"
    with pytest.raises(
        InputError,
        match="expected a pose network, whose outputs tell joints, got the outputs boxes, scores of a detector",
    ):
        recognized_preset(["boxes", "scores"], "x.onnx")


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_a_graph_of_any_batch_is_run_on_all_crops(make_graph, dots, tmp_path, batch):
    make_graph(batch=batch)
    points = 16 + 16 * torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(0))
    images = dots(points, (48, 64))
    teacher = described(tmp_path).load()
    said = teacher.predict(images)
    assert said.keypoints.shape == (6, 3, 2)
    torch.testing.assert_close(said.keypoints[5:], teacher.predict(images[5:]).keypoints)
    torch.testing.assert_close(said.keypoints, points, atol=2.0, rtol=0)


def test_identity_tells_files_and_descriptions_apart(make_graph, tmp_path):
    make_graph()

    def identity(**fields):
        file = described(tmp_path, **fields)
        return file.identity(file.load())

    first = identity()
    assert identity() == first
    others = {identity(cells="corner"), identity(range=[0, 2]), identity(padding=1.5)}
    make_graph("corner")
    assert len({first, *others, identity()}) == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "boxes"},
            r"teacher\.yaml: kind: expected one of 'heatmap', 'simcc', 'keypoints', got 'boxes'",
        ),
        ({"colour": "rgb"}, r"teacher\.yaml: field: expected one of 'kind', .*got 'colour'"),
        ({"range": [0, 0]}, r"teacher\.yaml: range: expected two different numbers, got"),
        ({"std": [1, 0, 1]}, r"teacher\.yaml: std: expected three numbers that are not 0"),
        (
            {"input_size": [32, 32]},
            r"input_size of .*dots\.onnx: expected the graph's \[48, 64\], got \[32, 32\]",
        ),
        ({"layout": "NHWC"}, r"layout of .*dots\.onnx: expected the one with 3 channels, got NHWC"),
        (
            {"outputs": {"heatmap": "maps"}},
            r"outputs\.heatmap: expected one of heatmap \(2, 3, 12, 16\), got 'maps'",
        ),
        ({"kind": "simcc"}, r"outputs: expected the names of x, y, got nothing for a network with heatmap"),
        ({"joints": ["a", "left_eye"]}, r"left_eye alone"),
        ({"file": "none.onnx"}, r"none\.onnx: expected an ONNX file, got no such file"),
        ({"file": None}, r"file: expected the name of an ONNX file, got None"),
        ({"file": "teacher.yaml"}, r"teacher\.yaml: expected an ONNX file that onnxruntime can run"),
        ({"preset": "alphapose"}, "expected one of 'efficientpose'"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_in_one_line(make_graph, tmp_path, fields, message):
    make_graph()
    with pytest.raises(InputError, match=message) as caught:
        described(tmp_path, **fields).load()
    assert "\n" not in str(caught.value)


def test_real_networks_are_recognised(shared_data):
    people = load_validation(DataConfig(root=str(shared_data / "lspet"))).joints
    teacher = TeacherFile(str(shared_data / "teachers/movenet_lightning_heads.onnx")).load("cpu", people)
    assert teacher.teacher_spec.num_bins == (48, 48) and teacher.teacher_spec.bin_origin == (1.5, 1.5)
    assert teacher.teacher_spec.joints == people
    with pytest.raises(InputError, match="the outputs boxes, scores, labels of a detector"):
        TeacherFile(str(shared_data / "teachers/person_detector_nanodet.onnx")).load("cpu", people)


def test_joints_of_a_checkpoint(tmp_path: Path) -> None:
    network = create_model("hrnet_w8_small", input_size=(32, 32), joints=MPII_JOINTS, num_joints=16)
    save_model(network, tmp_path / "best.safetensors")
    for path in (tmp_path, tmp_path / "best.safetensors"):
        assert TeacherFile(str(path)).joints() == MPII_JOINTS


def test_joints_of_a_foreign_network(shared_data: Path) -> None:
    path = shared_data / "teachers/movenet_lightning_heads.onnx"
    joints = TeacherFile(str(path)).joints()
    assert joints is not None and joints.names == COCO_JOINTS.names


def test_no_file(tmp_path: Path) -> None:
    for name in ("none.safetensors", "none.onnx"):
        with pytest.raises(InputError, match=f"teacher.*{name}"):
            TeacherFile(str(tmp_path / name)).joints()
