"""Networks in ONNX files: run by name, refused in one line."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.onnx_file import OnnxFile, onnx_digest


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """A graph that doubles x (B, 3) and adds one."""
    import onnx
    from onnx import TensorProto, helper

    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", 3]), ("twice", ["batch", 3]), ("more", ["batch", 3]))
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Add", ["twice", "one"], ["more"]),
    ]
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(nodes, "doubled", info[:1], info[1:], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"author": "somebody"})
    path = tmp_path / "doubled.onnx"
    onnx.save(model, path)
    return path


def test_runs_by_name(doubled: Path) -> None:
    network = OnnxFile(doubled, threads=1)
    assert str(network.inputs["x"]) == "x (?, 3) float32"
    assert network.metadata == {"author": "somebody"}
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    results = network({"x": x})
    assert list(results) == ["twice", "more"]
    np.testing.assert_array_equal(results["twice"], 2 * x)
    np.testing.assert_array_equal(results["more"], 2 * x + 1)


@pytest.mark.parametrize(
    "inputs",
    [{}, {"y": np.zeros((1, 3), np.float32)}, {"x": np.zeros((1, 4), np.float32)}, {"x": np.zeros((1, 3))}],
)
def test_what_the_graph_does_not_take(doubled: Path, inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(
        InputError, match=r"doubled\.onnx: expected inputs x \(\?, 3\) float32, got .*"
    ) as caught:
        OnnxFile(doubled)(inputs)
    assert "\n" not in str(caught.value)


def test_its_threads_rest_after_a_call(doubled: Path) -> None:
    options = OnnxFile(doubled, threads=2)._session.get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx: expected an ONNX file, got no such file"):
        OnnxFile(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x08\x12\x00"])
def test_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"broken\.onnx: expected an ONNX file that onnxruntime can run"
    ) as caught:
        OnnxFile(path)
    assert "\n" not in str(caught.value)


def test_without_onnxruntime(run_without: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = """
from cdkd_ext.extras import missing_extra
from cdkd_ext.onnx_file import OnnxFile
try:
    OnnxFile("teacher.onnx")
except ModuleNotFoundError as error:
    print(missing_extra(error, "an ONNX file", "train"))
"""
    done = run_without(["onnxruntime"], code)
    assert done.stdout == "onnxruntime is missing; an ONNX file needs `pip install 'cdkd-ext[onnx]'`\n", (
        done.stderr
    )


@pytest.mark.parametrize("name", ["split.onnx.data", "w" * 200])
def test_a_digest_is_of_all_the_weights(doubled: Path, tmp_path: Path, name: str) -> None:
    content = doubled.read_bytes()
    assert onnx_digest(doubled) == hashlib.sha256(content).hexdigest()
    onnx = pytest.importorskip("onnx")
    from onnx import numpy_helper

    digests = set()
    for value in (2.0, 3.0):
        weight = numpy_helper.from_array(np.full((64, 64), value, np.float32), "weight")
        node = onnx.helper.make_node("MatMul", ["x", "weight"], ["y"])
        x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in "xy")
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [x], [y], [weight]))
        path = tmp_path / "split.onnx"
        onnx.save(model, path, save_as_external_data=True, location=name, size_threshold=0)
        assert (tmp_path / name).stat().st_size == 4 * 64 * 64
        digests.add((hashlib.sha256(path.read_bytes()).hexdigest(), onnx_digest(path)))
        (tmp_path / name).unlink()
    # one graph, two networks
    assert len({graph for graph, _ in digests}) == 1 and len(digests) == 2
