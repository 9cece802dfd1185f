"""Small networks in ONNX files that have something to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from torch import nn

from cdkd_ext.data import Augmentation, DataConfig, PoseDataset, load_coco_persons
from cdkd_ext.teachers import TeacherDescription, TeacherOptions
from cdkd_ext.training import OptimizerConfig

if TYPE_CHECKING:
    from cdkd_ext.adaptation import AdaptationConfig

SIZE = 64
# the extra dev leaves it out, since it would bring another torch; `make test` installs it by itself
if find_spec("onnx2torch") is None:
    collect_ignore_glob = ["test_*.py"]


def write_model(
    path: Path,
    nodes: Sequence[Any],
    weights: dict[str, np.ndarray],
    outputs: dict[str, list[Any]],
    *,
    batch: int | str = "batch",
    size: int = SIZE,
) -> Path:
    """An ONNX file of nodes between `image` (batch, 3, size, size) and some outputs, given without their batch."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def convolution(name: str, source: str, weights: dict[str, np.ndarray], **options: Any) -> Any:
    """A convolution from `source` to `name`, its kernel and bias being `name.weight` and `name.bias`."""
    assert f"{name}.weight" in weights
    side = weights[f"{name}.weight"].shape[-1]
    given = [source, f"{name}.weight", f"{name}.bias"]
    return helper.make_node("Conv", given, [name], kernel_shape=[side, side], pads=[side // 2] * 4, **options)


def write_pose_network(path: Path, network: nn.Module, *, batch: int | str = "batch") -> Path:
    """The `SmallNetwork` as a graph with the outputs `heatmap`, after a sigmoid, and `center`."""
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    joints = weights["maps.weight"].shape[0]
    nodes = [
        convolution("first", "image", weights, strides=[2, 2]),
        helper.make_node("Relu", ["first"], ["a"]),
        convolution("second", "a", weights, strides=[2, 2]),
        helper.make_node("Relu", ["second"], ["b"]),
        convolution("third", "b", weights),
        helper.make_node("Relu", ["third"], ["c"]),
        convolution("maps", "c", weights),
        helper.make_node("Sigmoid", ["maps"], ["heatmap"]),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "flat"], ["vector"]),
        helper.make_node("Gemm", ["vector", "center.weight", "center.bias"], ["center"], transB=1),
    ]
    # the batch of a graph that fixes it stands in the shape, too
    flat = [batch if isinstance(batch, int) else -1, weights["center.weight"].shape[1]]
    outputs = {"heatmap": [joints, SIZE // 4, SIZE // 4], "center": [2]}
    return write_model(path, nodes, {**weights, "flat": np.array(flat)}, outputs, batch=batch)


class SmallNetwork(nn.Module):
    """Three convolutions to a quarter of the size, maps of joints, and two numbers of everything."""

    def __init__(self, joints: int = 16, channels: int = 24) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, 2, 1)
        self.second = nn.Conv2d(channels, channels, 3, 2, 1)
        self.third = nn.Conv2d(channels, channels, 5, 1, 2)
        self.maps = nn.Conv2d(channels, joints, 5, 1, 2)
        self.center = nn.Linear(channels, 2)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        planes = self.third(self.second(self.first(images).relu()).relu()).relu()
        return {"heatmap": self.maps(planes), "center": self.center(planes.mean((2, 3)))}


DESCRIPTION = TeacherDescription(
    kind="heatmap", outputs={"heatmap": "heatmap"}, input_size=(SIZE, SIZE), values="logits", joints="mpii"
)
YAML = "file: network.onnx\nkind: heatmap\noutputs: {heatmap: heatmap}\njoints: mpii\n"


@pytest.fixture(scope="session")
def trained_network(drawn_people: Path) -> SmallNetwork:
    """A network that has learnt from the labels of some drawn people, at full resolution alone."""
    from cdkd_ext.adaptation import KeypointLoss
    from cdkd_ext.teachers.readers import READERS

    root = drawn_people / "train"
    persons, joints = load_coco_persons(root / "annotations.json", root / "images")
    dataset = PoseDataset(persons, joints, size=(SIZE, SIZE))
    samples = [dataset[index] for index in range(len(dataset))]
    images = torch.stack([sample["image"] for sample in samples]).float() / 255
    keypoints, annotated = (
        torch.stack([sample[name] for sample in samples]) for name in ("keypoints", "annotated")
    )
    torch.manual_seed(0)
    network = SmallNetwork()
    loss = KeypointLoss(DESCRIPTION, READERS["heatmap"](DESCRIPTION, network(images[:2])))
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for step in range(120):
        chosen = torch.arange(16) + 16 * (step % 3)
        terms = loss(network(images[chosen]), keypoints[chosen], annotated[chosen])
        optimizer.zero_grad()
        terms["heatmap"].backward()
        optimizer.step()
    with torch.no_grad():
        # the softmax leaves the height of the peaks open
        network.maps.bias -= network(images)["heatmap"].amax((2, 3)).mean(0) - 1
        # numbers that depend on the image, to be kept
        network.center.weight.normal_(0, 1)
    return network.eval()


@pytest.fixture
def pose_file(tmp_path: Path, trained_network: SmallNetwork) -> Path:
    """A YAML file that describes the trained network's ONNX file beside it, network.onnx."""
    write_pose_network(tmp_path / "network.onnx", trained_network)
    (tmp_path / "network.yaml").write_text(YAML)
    return tmp_path / "network.yaml"


@pytest.fixture
def small_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of an untrained network."""

    def write(name: str = "network.onnx", *, batch: int | str = "batch", seed: int = 0) -> Path:
        torch.manual_seed(seed)
        return write_pose_network(tmp_path / name, SmallNetwork(channels=4), batch=batch)

    return write


@pytest.fixture
def config(pose_file: Path, drawn_people: Path, tmp_path: Path) -> AdaptationConfig:
    """A short adaptation to 16 pixels."""
    from cdkd_ext.adaptation import AdaptationConfig

    return AdaptationConfig(
        output=str(tmp_path / "run"),
        model=str(pose_file),
        size="16",
        # what has learnt few people by heart knows none that are turned
        data=DataConfig(root=str(drawn_people), workers=0, augmentation=Augmentation(0, 0, 0, 0)),
        teacher_options=TeacherOptions(),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="constant", warmup=0, weight_decay=0),
        steps=8,
        batch_size=8,
        check_every=4,
        report_people=12,
        flip_test=False,
        cpu=True,
    )
