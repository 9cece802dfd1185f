"""Exported files say what PyTorch says, carry what a user needs, and do not appear where they are wrong."""

from __future__ import annotations

import json
import re
import shutil

import cv2
import numpy as np
import onnx
import pytest
import torch

import cdkd_ext.deployment.export as export
from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig, load_coco_persons
from cdkd_ext.deployment import CropDecoder, export_network
from cdkd_ext.deployment.difference import Difference
from cdkd_ext.errors import InputError
from cdkd_ext.inference import Predictor, read_image
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.onnx_file import OnnxFile


@pytest.fixture(scope="module")
def joints(drawn_people):
    return load_coco_persons(drawn_people / "val/annotations.json", drawn_people / "val/images")[1]


@pytest.fixture(scope="module")
def run(drawn_people, decided_network, run_of, joints):
    return run_of(decided_network(joints, "simcc", split_ratio=2.0), drawn_people)


@pytest.fixture(scope="module")
def exported(run):
    report = export_network(str(run), license="CC-BY-4.0")
    assert report.path == run / "best.onnx"
    return report


@pytest.fixture(scope="module")
def heatmap(decided_network, run_of, joints, tmp_path_factory):
    """A network and its file: heatmaps with DARK's decoding, BGR inside, averaged with the mirror image."""
    network = decided_network(joints, "heatmap", decoding="dark", color_order="bgr")
    path = tmp_path_factory.mktemp("heatmap") / "flipping.onnx"
    report = export_network(str(run_of(network, None)), str(path), flip_test=True)
    return network, report


def photo(seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)


BOXES = [(10, 5, 60, 90), (40, 20, 100, 80), (-20, 60, 50, 100)]


def test_a_file_says_what_its_network_says(run, exported, drawn_people):
    assert exported.difference.crops == 12 and exported.difference.moved == 0
    assert str(drawn_people / "val/annotations.json") in str(exported)
    assert "ONNX, opset 18, float32" in str(exported) and exported.accuracy is None
    ours, theirs = Predictor.load(run, flip_test=False), Predictor.load(exported.path)
    assert theirs.joints == ours.joints and theirs.padding == ours.padding == 1.5
    assert theirs.network.score_threshold == ours.network.score_threshold == 0.02
    for found, expected in zip(theirs(photo(), BOXES), ours(photo(), BOXES), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert theirs(photo(), BOXES).keypoints.std() > 5


def test_no_matrix_is_copied_for_each_image(exported):
    graph = onnx.load(exported.path).graph
    kinds = {node.op_type for node in graph.node}
    assert "MatMul" in kinds and not {"Expand", "Shape"} & kinds
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_images_are_normalised_by_whole_rows(exported):
    """Three numbers at a time take a tenth of a small network's time in eight bits."""
    graph = onnx.load(exported.path).graph
    shapes = {value.name: tuple(value.dims) for value in graph.initializer}
    first = [node for node in graph.node if node.op_type in ("Sub", "Div")][:2]
    assert [shapes.get(node.input[1]) for node in first] == [(3, 1, 32)] * 2


def test_heatmaps_are_flipped_and_decoded_inside(heatmap):
    network, report = heatmap
    assert "drawn people" in str(report)
    theirs, ours = Predictor.load(report.path), Predictor(network, flip_test=True)
    for found, expected in zip(theirs(photo(), BOXES), ours(photo(), BOXES), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-2)
    plain = Predictor(network, flip_test=False)(photo(), BOXES)
    assert np.abs(theirs(photo(), BOXES).scores - plain.scores).max() > 1e-2


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_a_batch_may_have_any_size(exported, heatmap, kind, count):
    file = OnnxFile(exported.path if kind == "simcc" else heatmap[1].path, cpu=True)
    (given,) = file.inputs.values()
    assert given.shape == (None, 32, 32, 3) and given.dtype == np.uint8
    said = file({"images": np.zeros((count, 32, 32, 3), np.uint8)})
    joints = said["scores"].shape[1]
    assert said["keypoints"].shape == (count, joints, 2) and said["scores"].shape == (count, joints)


def test_the_metadata_has_what_a_user_needs(exported, joints):
    metadata = OnnxFile(exported.path, cpu=True).metadata
    category = json.loads(metadata["joints"])
    assert category == joints.to_category() and category["skeleton"] and category["flip_pairs"]
    assert json.loads(metadata["input_size"]) == [32, 32] and json.loads(metadata["padding"]) == 1.5
    assert metadata["license"] == "CC-BY-4.0" and metadata["precision"] == "float32"
    assert json.loads(metadata["model"])["name"] == "lowres_small" and metadata["cdkd_ext"]


def test_a_file_tells_nothing_of_the_machine_that_wrote_it(exported, run):
    content = exported.path.read_bytes()
    for word in (b"site-packages", b"/crop_decoder", b".py", str(run).encode()):
        assert word not in content
    import onnx

    graph = onnx.load(exported.path).graph
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


WITHOUT_TORCH = """
import sys
import numpy as np
from cdkd_ext import Predictor
from cdkd_ext.inference import draw_pose, read_image

predictor = Predictor.load(sys.argv[1])
poses = predictor(read_image(sys.argv[2]), [(10, 5, 60, 90)])
draw_pose(read_image(sys.argv[2]), poses.keypoints[0], predictor.joints)
assert not {"torch", "safetensors"} & set(sys.modules)
print(*poses.keypoints.ravel())
"""


def test_a_file_runs_where_there_is_no_torch(exported, run, run_without, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), photo())
    away = ["torch", "safetensors", "onnx", "onnxscript", "yaml", "rich", "accelerate", "jsonargparse"]
    done = run_without(away, WITHOUT_TORCH, str(exported.path), str(tmp_path / "photo.png"))
    assert done.returncode == 0, done.stderr
    ours = Predictor.load(run, flip_test=False)(read_image(tmp_path / "photo.png"), BOXES[:1])
    np.testing.assert_allclose(
        np.array(done.stdout.split(), float), ours.keypoints.ravel(), rtol=0, atol=1e-3
    )


@pytest.fixture
def written_before(exported, monkeypatch):
    """Puts the file of `exported` in place of every graph that would take seconds to make."""

    def copied(decoder, path, **options):
        shutil.copy(exported.path, path)

    monkeypatch.setattr(export, "write_onnx", copied)


@pytest.mark.usefixtures("written_before")
def test_int8_is_quantised_by_the_data_and_measured(run, tmp_path, capsys):
    output = tmp_path / "small.onnx"
    assert main(["export", str(run), f"--output={output}", "--precision=int8"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"PCKh@0.5: \d+\.\d\d in PyTorch, \d+\.\d\d of the file \([+-]\d+\.\d\d\), 12 people, without the flip test",
        printed,
    )
    assert re.search(r"quantised by 48 crops of people to train on, .*train/annotations\.json", printed)
    assert output.stat().st_size < 0.5 * (run / "best.safetensors").stat().st_size
    predictor = Predictor.load(output)
    assert predictor(photo(), BOXES).keypoints.shape == (3, len(predictor.joints), 2)


def test_float16_is_half_as_large_and_close(run, tmp_path):
    report = export_network(str(run), str(tmp_path / "half.onnx"), precision="float16")
    assert report.size < 0.6 * (run / "best.safetensors").stat().st_size
    assert 0 < report.difference.scores < 0.02 and report.accuracy is not None


def test_a_program_runs_in_pytorch(run, tmp_path):
    report = export_network(str(run), str(tmp_path / "student.pt2"), format="torch")
    assert report.opset is None and "PyTorch program" in str(report)
    extra = {"metadata.json": ""}
    module = torch.export.load(report.path, extra_files=extra).module()
    assert json.loads(extra["metadata.json"])["precision"] == "float32"
    crops = torch.from_numpy(photo())[None, :32, :32]
    with torch.no_grad():
        expected = CropDecoder(Predictor.load(run).network.model)(crops)
    for found, value in zip(module(crops), expected, strict=True):
        torch.testing.assert_close(found, value)
    assert not {node.target for node in module.graph.nodes if "cdkd" in str(node.target)}


@pytest.mark.usefixtures("written_before")
def test_a_wrong_file_does_not_appear(decided_network, joints, run_of, tmp_path):
    network = decided_network(joints, "simcc", split_ratio=2.0)
    torch.nn.init.normal_(network.mlp_head_x.weight)
    with pytest.raises(InputError, match=r"wrong.onnx: expected the keypoints of PyTorch, got against"):
        export_network(str(run_of(network, None)), str(tmp_path / "wrong.onnx"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "student.pth"}, r"output: expected the name of a .onnx file, got student.pth"),
        ({"format": "torch", "output": "a.onnx"}, "output: expected the name of a .pt2 file, got a.onnx"),
        ({"format": "torch", "precision": "int8"}, "precision: expected float32 or float16 of a program"),
        ({"opset": 11}, "opset: expected a number from 18 to 23, got 11"),
        ({"precision": "bf16"}, "precision: expected one of 'float32', 'float16', 'int8'"),
        ({"data": DataConfig(root="nowhere")}, "data.root: expected an existing folder, got nowhere"),
    ],
)
def test_a_bad_option_is_named(run, options, message):
    with pytest.raises(InputError, match=message):
        export_network(str(run), **options)


def test_a_folder_in_the_files_place_is_told_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path / "a.onnx").mkdir()
    monkeypatch.setattr("cdkd_ext.deployment.export.load_model", lambda *_: pytest.fail("worked"))
    with pytest.raises(InputError, match=r"output: expected a file, got the folder .*a\.onnx"):
        export_network(str(run), str(tmp_path / "a.onnx"))


def test_int8_needs_data_of_people(decided_network, joints, run_of, tmp_path):
    folder = run_of(decided_network(joints, "simcc"), None)
    with pytest.raises(InputError, match=r"data: expected the run's data.* got drawn people"):
        export_network(str(folder), str(tmp_path / "small.onnx"), precision="int8")
    assert not list(tmp_path.iterdir())


def test_a_difference_counts_what_moved(exported, heatmap):
    class Still(type(Predictor.load(exported.path).network)):
        def __init__(self, shift):
            self.shift = shift

        def __call__(self, crops, to_image):
            points = np.zeros((len(crops), 4, 2), np.float32)
            points[0, 0, 0] = self.shift
            return points, np.full((len(crops), 4), self.shift / 100, np.float32)

    crops = np.zeros((5, 32, 32, 3), np.uint8)
    found = Difference.between(Still(0.0), Still(3.0), crops, "tests")
    assert (found.pixels, found.moved) == (3.0, pytest.approx(1 / 20))
    assert found.scores == pytest.approx(0.03) and "5 crops of tests" in str(found)
    with pytest.raises(InputError):
        found.refuse_large(exported.path)
    found.refuse_nan(exported.path)
    with pytest.raises(InputError, match="expected keypoints and scores, got some that are NaN"):
        Difference.between(Still(0.0), Still(np.nan), crops, "tests").refuse_nan(exported.path)
    for before, after in ((0.0, np.nan), (np.nan, 0.0), (np.nan, np.nan)):
        found = Difference.between(Still(before), Still(after), crops, "tests", rounded=[Still(before)])
        assert found.moved == pytest.approx(1 / 20)
        with pytest.raises(InputError, match="some that are NaN"):
            found.refuse_nan(exported.path)
    # what the same function in other steps does not keep either says nothing
    found = Difference.between(Still(0.0), Still(0.05), crops, "tests", rounded=[Still(0.0), Still(0.02)])
    assert (found.pixels, found.moved) == (pytest.approx(0.05), 0)
    found.refuse_large(exported.path)
    found = Difference.between(Still(0.0), Still(0.05), crops, "tests", rounded=[Still(0.005)])
    assert found.moved == pytest.approx(1 / 20)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_package_that_is_missing_is_named(run, run_without, tmp_path, package):
    code = "from cdkd_ext.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = run_without([package], code, "export", str(run), "--output", str(tmp_path / "student.onnx"))
    expected = f"cdkd: {package} is missing; `cdkd export` needs `pip install 'cdkd-ext[export]'`"
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (2, expected)
    assert not list(tmp_path.iterdir())


def test_joints_are_needed(decided_network, tmp_path):
    network = decided_network(MPII_JOINTS, "simcc")
    object.__setattr__(network.spec, "joints", None)
    with pytest.raises(InputError, match="expected a network that knows its joints"):
        export.described(network.spec, precision="float32", flip_test=False)
    with pytest.raises(InputError, match="flip_test: expected a network that knows its joints"):
        CropDecoder(network, flip_test=True)


def test_a_head_that_is_not_decoded_by_tensors_alone_is_named(joints):
    network = create_model(
        "hrnet_w8_small", input_size=(64, 64), num_joints=len(joints), joints=joints, head="prtr", depth=1
    )
    with pytest.raises(
        InputError, match="network: expected one whose decoding is a graph of tensors, got the head prtr"
    ):
        CropDecoder(network)
