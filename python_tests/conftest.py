"""Fixtures shared by the whole suite."""

from __future__ import annotations

import colorsys
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings

# no test depends on how busy the machine is
settings.register_profile("cdkd", deadline=None)
settings.load_profile("cdkd")

# files and folders whose few tests take minutes: what several workers share ends together if these come first
_FIRST = ("test_cli.py", "test_readme.py", "demo", "examples", "studies", "cli", "docs", "methods", "bench")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make test-long` gives."""
    parser.addoption("--long", action="store_true", help="run the tests that are marked long, too")


def pytest_configure() -> None:
    """Let Ctrl-C interrupt what tests start: shells have commands in the background ignore it, and their children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that take long, unless they are asked for, and put first what takes minutes."""
    first = [Path(__file__).parent / name for name in _FIRST]
    items.sort(key=lambda item: not any(item.path.is_relative_to(place) for place in first))
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("long"):
            item.add_marker(pytest.mark.skip(reason="takes long (`make test-long`, or --long)"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start the shared generators anew, so that a test draws the same whatever ran before it."""
    import torch

    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs; tests that need it skip where it is absent."""
    chosen = os.environ.get("CDKD_TEST_DATA")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real photographs at {folder} (set CDKD_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def drawn_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of drawn people: 48 people to train on, 12 to validate."""
    from cdkd_ext.synthetic.dataset import draw_people

    root = tmp_path_factory.mktemp("drawn_people")
    draw_people(root / "train", 48, seed=0)
    draw_people(root / "val", 12, seed=1)
    return root


@pytest.fixture(scope="module")
def few_layers() -> Iterator[None]:
    """Makes `lowres_small` a network of a sixth of its layers, in this process alone: graphs are traced layer by layer."""
    from cdkd_ext.models import registry
    from cdkd_ext.models.lowres import LowRes, LowResLayout

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._NETWORKS, "lowres_small", (LowRes, LowResLayout((8, 16), modules=1)))
        yield


@pytest.fixture(scope="session")
def no_host_reads() -> Callable[[], AbstractContextManager[Any]]:
    """A context that fails where code would make the host wait for a GPU.

    Give it tensors on the device "meta", whose values cannot be read, so that code takes the paths it takes on a GPU.
    """
    from torch import Tensor
    from torch.overrides import TorchFunctionMode, resolve_name

    reads = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero"}
    # a tensor made of Python numbers is copied to a GPU from memory that is not pinned
    makes = {"tensor", "as_tensor", "new_tensor", "from_numpy"}

    class NoHostReads(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(function, "__name__", "")
            assert name not in reads, f"{resolve_name(function)} waits for the device"
            result = function(*args, **(kwargs or {}))
            made = name in makes and isinstance(result, Tensor) and result.device.type != "cpu"
            assert not made, f"{resolve_name(function)} waits for the device"
            return result

    return NoHostReads


# one colour per joint, so that a picture tells where each joint is
_JOINT_COLORS = np.array([colorsys.hsv_to_rgb(j / 17, 1, 1) for j in range(17)]) * 255


@pytest.fixture(scope="session")
def joint_colors() -> np.ndarray:
    """RGB (17, 3), the colours of the joints in the pictures of `official_data`."""
    return _JOINT_COLORS


def _write_picture(path: Path, joints: np.ndarray, rng: np.random.Generator) -> None:
    """A dark picture of 160 x 140 pixels with a coloured dot on each joint (J, 2)."""
    import cv2

    image = rng.integers(0, 20, (140, 160, 3), dtype=np.uint8)
    for (x, y), color in zip(joints, _JOINT_COLORS, strict=False):
        cv2.circle(image, (round(x), round(y)), 2, color[::-1].round().tolist(), -1)
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="session")
def official_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MPII and COCO in their official layouts, under mpii/ and coco/: six pictures for training, four for validation.

    coco/boxes.json holds two detected boxes per validation person. A joint is a dot in its colour of `joint_colors`.
    """
    root = tmp_path_factory.mktemp("official")
    rng = np.random.default_rng(11)
    _write_mpii(root / "mpii", rng)
    _write_coco(root / "coco", rng)
    return root


def _write_mpii(folder: Path, rng: np.random.Generator) -> None:
    from scipy.io import savemat

    (folder / "annot").mkdir(parents=True)
    (folder / "images").mkdir()
    for split, count in (("train", 6), ("valid", 4)):
        entries: list[dict[str, Any]] = []
        joints = rng.uniform(30, 110, (count, 16, 2)).round(1)
        missing = rng.random((count, 16)) < 0.1
        for i in range(count):
            _write_picture(folder / f"images/{split}{i}.png", joints[i], rng)
            # coordinates in the files start at one
            written = np.where(missing[i, :, None], -1.0, joints[i] + 1)
            entries.append(
                {
                    "image": f"{split}{i}.png",
                    "center": [71.0, 71.0 - 15 * 0.5],
                    "scale": 0.5,
                    "joints": written.tolist(),
                    "joints_vis": (~missing[i]).astype(int).tolist(),
                }
            )
        (folder / f"annot/{split}.json").write_text(json.dumps(entries))
        if split == "valid":
            corners = np.zeros((2, count))
            content = {
                "headboxes_src": np.stack([corners, corners + np.array([[12.0], [16.0]])]),
                "pos_gt_src": (joints + 1).transpose(1, 2, 0),
                "jnt_missing": missing.T.astype(float),
            }
            savemat(folder / "annot/gt_valid.mat", content)


def _write_coco(folder: Path, rng: np.random.Generator) -> None:
    from cdkd_ext.joints import COCO_JOINTS

    (folder / "annotations").mkdir(parents=True)
    detections: list[dict[str, Any]] = []
    for split, count in (("train2017", 6), ("val2017", 4)):
        (folder / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            images.append({"id": i + 1, "file_name": f"{i + 1:012d}.png", "height": 140, "width": 160})
            points = rng.uniform((40, 30), (120, 110), (17, 2)).round()
            _write_picture(folder / split / f"{i + 1:012d}.png", points, rng)
            low, high = points.min(0) - 5, points.max(0) + 5
            box = [*low.tolist(), *(high - low).tolist()]
            person = {
                "id": i + 1,
                "image_id": i + 1,
                "category_id": 1,
                "keypoints": np.column_stack([points, np.full(17, 2)]).ravel().tolist(),
                "num_keypoints": 17,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            annotations.append(person)
            if split == "val2017":
                moved = [box[0] - 2, box[1] + 1, box[2] + 4, box[3]]
                for found, score in ((moved, 0.9), (box, 0.6)):
                    detections.append({"image_id": i + 1, "category_id": 1, "bbox": found, "score": score})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person", **COCO_JOINTS.to_category()}],
        }
        (folder / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(content))
    (folder / "boxes.json").write_text(json.dumps(detections))


# a finder in front of all others, which does not find
_BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="session")
def run_without() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a process of its own where some packages are not installed."""

    def run(packages: Sequence[str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _BLOCKER.format(packages=set(packages)) + code, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # where no source folder hides the installed package
        folder = Path(__file__).parent
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)

    return run


class StandInCapture:
    """In place of `cv2.VideoCapture`: plays a script of frames, and can be open once at a time, as a camera.

    A frame is an array as OpenCV gives it, "torn" where it cannot be decoded, None where none can be grabbed, or something
    to call when it is asked for. After the last there are none.
    """

    scripts: ClassVar[dict[Any, list[Any]]] = {}
    opened: ClassVar[list[Any]] = []
    open_now: ClassVar[set[Any]] = set()

    def __init__(self, address: Any) -> None:
        self._address, self._frame = address, None
        self._open = address in self.scripts and address not in self.open_now
        if self._open:
            self._script = iter(self.scripts[address])
            self.opened.append(address)
            self.open_now.add(address)

    def isOpened(self) -> bool:  # noqa: N802  OpenCV's name
        return self._open

    def get(self, name: int) -> float:
        return -1.0

    def grab(self) -> bool:
        self._frame = next(self._script, None)
        if callable(self._frame):
            self._frame = self._frame()
        return self._frame is not None

    def retrieve(self) -> tuple[bool, Any]:
        return (False, None) if isinstance(self._frame, str) else (True, self._frame)

    def release(self) -> None:
        if self._open:
            self.open_now.discard(self._address)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> type[StandInCapture]:
    """Cameras and streams without any: give each address in `scripts` its frames."""
    import cv2

    stand_in = type("Captures", (StandInCapture,), {"scripts": {}, "opened": [], "open_now": set()})
    of_files = cv2.VideoCapture

    def capture(address: Any) -> Any:
        is_file = address not in stand_in.scripts and Path(str(address)).is_file()
        return of_files(address) if is_file else stand_in(address)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return stand_in


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The time of `inference.sources`, in which sleeping takes none: a second passes with each 1.0 of `sleep`."""
    from cdkd_ext.inference import sources

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.001
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    found = Clock()
    monkeypatch.setattr(sources, "time", found)
    return found


# graphs that see coloured dots: joint j is a dot in colour channel j
_STRIDE = 4
_DOT = 5.0  # standard deviation in pixels


def _draw_dots(points: Any, size: tuple[int, int]) -> Any:
    """Crops (B, 3, H, W) uint8 with a soft dot in channel j at each point (B, 3, 2), x and y, pixel centres integers."""
    import torch

    rows, columns = (torch.arange(side, dtype=torch.float64) for side in size)
    across = torch.exp(-((columns - points[..., :1]) ** 2) / (2 * _DOT**2))
    down = torch.exp(-((rows - points[..., 1:]) ** 2) / (2 * _DOT**2))
    return (255 * down[..., :, None] * across[..., None, :]).round().to(torch.uint8)


@pytest.fixture
def dots() -> Callable[..., Any]:
    """Draws crops (B, 3, H, W) uint8 with a soft dot in channel j at point (B, 3, 2) j."""
    return _draw_dots


@pytest.fixture
def make_graph(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph whose heatmaps are the colour channels of its input, at a quarter of the size."""
    from onnx import TensorProto, helper, numpy_helper, save

    def nodes_of(cells: str, size: tuple[int, int]) -> tuple[list[Any], list[Any]]:
        if cells == "center":
            # a block's mean lies at its middle
            side = [_STRIDE, _STRIDE]
            return [
                helper.make_node("AveragePool", ["planes"], ["maps"], kernel_shape=side, strides=side)
            ], []
        if cells == "corner":
            return [
                helper.make_node(
                    "AveragePool", ["planes"], ["maps"], kernel_shape=[1, 1], strides=[_STRIDE, _STRIDE]
                )
            ], []
        sizes = np.array([0, 3, size[0] // _STRIDE, size[1] // _STRIDE])
        shape = helper.make_node("Shape", ["planes"], ["shape"])
        first = helper.make_node("Slice", ["shape", "zero", "one"], ["batch"])
        join = helper.make_node("Concat", ["batch", "sizes"], ["wanted"], axis=0)
        options = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        resize = helper.make_node("Resize", ["planes", "", "", "wanted"], ["maps"], **options)
        constants = {"zero": np.array([0]), "one": np.array([1]), "sizes": sizes[1:]}
        made = [numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()]
        return [shape, first, join, resize], made

    def make(
        cells: str = "center",
        *,
        size: tuple[int, int] = (48, 64),
        layout: str = "NCHW",
        output_layout: str = "NCHW",
        batch: int | str = "batch",
        output: str = "heatmap",
        name: str = "dots.onnx",
    ) -> Path:
        nodes, constants = nodes_of(cells, size)
        given = [batch, 3, *size] if layout == "NCHW" else [batch, *size, 3]
        if layout == "NHWC":
            nodes.insert(0, helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
        else:
            nodes.insert(0, helper.make_node("Identity", ["image"], ["planes"]))
        order = [0, 2, 3, 1] if output_layout == "NHWC" else [0, 1, 2, 3]
        nodes.append(helper.make_node("Transpose", ["maps"], [output], perm=order))
        graph = helper.make_graph(
            nodes,
            "dots",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, given)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, None, None, None])],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        save(model, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def write_teacher() -> Callable[..., None]:
    """Writes an ONNX file whose heatmaps, at a quarter of its crops, are colours."""
    from onnx import TensorProto, helper, numpy_helper, save

    def write(path: Path, *, joints: int = 16, size: int = 64, seed: int = 0) -> None:
        weight = np.random.default_rng(seed).normal(0, 9, (joints, 3, 1, 1)).astype(np.float32)
        nodes = [
            helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("InstanceNormalization", ["small", "one", "zero"], ["normal"]),
            helper.make_node("Conv", ["normal", "weight"], ["mixed"]),
            helper.make_node("Sigmoid", ["mixed"], ["heatmap"]),
        ]
        values = {"weight": weight, "one": np.ones(3, np.float32), "zero": np.zeros(3, np.float32)}
        graph = helper.make_graph(
            nodes,
            "teacher",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
            [
                helper.make_tensor_value_info(
                    "heatmap", TensorProto.FLOAT, ["batch", joints, size // 4, size // 4]
                )
            ],
            [numpy_helper.from_array(value, name) for name, value in values.items()],
        )
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    return write
