"""People of a frame, all at once and one after the other: `python -m bench.inference.frames`.

From a 1080p image and boxes to keypoints in its pixels: this package with PyTorch, with its fused copies (float32 and
bfloat16), and with onnxruntime on exported files (float32 and int8), against the common way of scripts around ONNX files,
which cut, normalise, run and decode one person after the other with numpy. All look at the same crops with the same
network. Heatmaps are decoded as DARK does. The ways take turns, and the median of their rounds counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from bench.harness.table import print_rows
from cdkd_ext.data import crop_matrix, invert_affine, region_from_box, transform_points
from cdkd_ext.deployment import CropDecoder, write_onnx
from cdkd_ext.deployment.export import described
from cdkd_ext.deployment.int8 import quantize
from cdkd_ext.inference import Predictor, TorchNetwork
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import PoseNetwork, create_model

ONE_BY_ONE = "onnxruntime, one by one, numpy"
# in float64, which is what such scripts have where nobody chose a type
_MEAN = np.array([123.675, 116.28, 103.53])
_DEVIATION = np.array([58.395, 57.12, 57.375])
# seconds after which the threads of a script's onnxruntime have come to rest: they spin for 0.06
_REST = 0.1

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}

Floats = npt.NDArray[np.floating[Any]]
Boxes = list[tuple[float, float, float, float]]
# keypoints (N, J, 2) in pixels of the image, and scores (N, J)
Found = tuple[Floats, Floats]
Way = Callable[[npt.NDArray[np.uint8], Boxes], Found]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.inference.frames", description=__doc__)
    parser.add_argument("--model", default="lowres_base")
    parser.add_argument("--head", choices=("heatmap", "simcc"), default="heatmap")
    parser.add_argument("--size", type=int, default=32, help="height and width of the crops")
    parser.add_argument("--people", type=int, nargs="+", default=[1, 10, 20], help="in a frame")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall", help="processor: of all threads, on a busy machine"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    network = create_model(
        options.model,
        input_size=(options.size, options.size),
        num_joints=len(COCO_JOINTS),
        joints=COCO_JOINTS,
        resample="linear",
        head=options.head,
        **({"decoding": "dark"} if options.head == "heatmap" else {}),
    ).eval()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (135, 240, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(noise, (1920, 1080)), np.uint8)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            ways = competitors(network, Path(folder), threads)
            for people in options.people:
                boxes = draw_boxes(people, rng)
                check_agreement(ways, image, boxes, options.head)
                rows += measure(ways, image, boxes, threads, options.rounds, CLOCKS[options.clock])
    measured = f"{options.model}, {options.head}, {options.size}x{options.size}"
    print(f"{measured}; torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    print_rows([["way", "threads", "people", "ms/frame", "crops/s", "times as fast"], *rows])


def draw_boxes(people: int, rng: np.random.Generator) -> Boxes:
    """Boxes of people, 100 to 400 pixels tall."""
    heights = rng.uniform(100, 400, people)
    return [
        (float(rng.uniform(0, 1700)), float(rng.uniform(0, 680)), float(height / 2), float(height))
        for height in heights
    ]


def competitors(network: PoseNetwork, folder: Path, threads: int) -> dict[str, Way]:
    """Each way as a function from image and boxes to keypoints and scores."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    write_onnx(
        CropDecoder(network),
        folder / "whole.onnx",
        metadata=described(network.spec, precision="float32", flip_test=False),
    )
    noise = np.random.default_rng(0).integers(0, 256, (64, *network.input_size, 3), dtype=np.uint8)
    quantize(folder / "whole.onnx", folder / "int8.onnx", noise)
    predictors: dict[str, Way] = {
        "PyTorch": Predictor(network, flip_test=False),
        "PyTorch, fused": Predictor(TorchNetwork(network, flip_test=False, precision="float32")),
        "PyTorch, fused, bfloat16": Predictor(TorchNetwork(network, flip_test=False, precision="bfloat16")),
        "onnxruntime, exported": Predictor.load(folder / "whole.onnx", threads=threads),
        "onnxruntime, exported, int8": Predictor.load(folder / "int8.onnx", threads=threads),
    }
    return {ONE_BY_ONE: OneByOne(network, folder / "logits.onnx", threads), **predictors}


class OneByOne:
    """One person after the other: numpy prepares and decodes, onnxruntime runs the bare network."""

    def __init__(self, network: PoseNetwork, path: Path, threads: int) -> None:
        height, width = network.input_size
        self._size, self._spec = (height, width), network.spec
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, height, width),),
            str(path),
            dynamo=True,
            input_names=["input"],
            output_names=["feature", "x", "y"] if network.spec.head == "simcc" else ["heatmaps"],
            verbose=False,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, image: npt.NDArray[np.uint8], boxes: Boxes) -> Found:
        """Keypoints, and as scores the heights of maxima, of SimCC's axes the smaller one."""
        keypoints, scores = zip(*(self._person(image, box) for box in boxes), strict=True)
        return np.stack(keypoints), np.stack(scores)

    def _person(self, image: npt.NDArray[np.uint8], box: tuple[float, float, float, float]) -> Found:
        matrix = crop_matrix(region_from_box(box, self._size, self._spec.padding), self._size)
        crop = cv2.warpAffine(image, matrix, self._size[::-1], flags=cv2.INTER_LINEAR)
        planes = ((crop - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None]
        outputs = self._session.run(None, {"input": np.ascontiguousarray(planes, np.float32)})
        if self._spec.head == "simcc":
            x, y = outputs[1][0], outputs[2][0]
            points = np.stack([x.argmax(-1), y.argmax(-1)], -1) / self._spec.split_ratio
            scores = np.minimum(x.max(-1), y.max(-1))
        else:
            maps = outputs[0][0]
            points = dark(maps) * (self._size[1] / maps.shape[2], self._size[0] / maps.shape[1])
            scores = maps.max((1, 2))
        return transform_points(points, invert_affine(matrix)), scores


def dark(maps: Floats) -> Floats:
    """Keypoints (J, 2) in cells of heatmaps (J, h, w), joint by joint with numpy and OpenCV, as such scripts decode them."""
    rows, columns = maps.shape[1:]
    longer = max(rows, columns)
    kernel = 3 if longer <= 32 else 11 if longer <= 64 else 17
    points = np.zeros((len(maps), 2))
    for point, one in zip(points, maps, strict=True):
        y, x = divmod(int(one.argmax()), columns)
        if one[y, x] <= 0:
            continue
        point[:] = x, y
        if not (1 < x < columns - 2 and 1 < y < rows - 2):
            continue
        soft = cv2.GaussianBlur(one, (kernel, kernel), 0, borderType=cv2.BORDER_CONSTANT)
        log = np.log(np.maximum(soft * one[y, x] / soft.max(), 1e-10))
        slope = 0.5 * np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]])
        across = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
        down = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
        both = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
        if across * down != both**2:
            point[:] -= np.linalg.solve([[across, both], [both, down]], slope)
    return points


def check_agreement(ways: dict[str, Any], image: npt.NDArray[np.uint8], boxes: Boxes, head: str) -> None:
    """Stop where a way finds something else.

    Of fresh weights some maxima are ties, which rounding decides. Heatmaps are compared by their heights: among cells of
    noise DARK's steps are as long as rounding makes them.
    """
    keypoints, heights = ways[ONE_BY_ONE](image, boxes)
    for name, way in ways.items():
        rounded = "bfloat16" in name or "int8" in name
        own_keypoints, own_heights = way(image, boxes)
        if head == "heatmap":
            off = np.abs(own_heights - heights) > (0.2 if rounded else 0.001) * heights.mean()
            limit = 0.05
        else:
            off = np.linalg.norm(own_keypoints - keypoints, axis=-1) > 0.1
            limit = 0.6 if rounded else 0.05
        if off.mean() > limit:
            raise SystemExit(f"{name}: {100 * off.mean():.1f} % of the keypoints are elsewhere")


def measure(
    ways: dict[str, Any],
    image: npt.NDArray[np.uint8],
    boxes: Boxes,
    threads: int,
    rounds: int,
    clock: Callable[[], float],
) -> list[list[str]]:
    """A row for each way."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    medians = in_turns({name: partial(way, image, boxes) for name, way in ways.items()}, rounds, clock)
    slow = medians[ONE_BY_ONE]
    return [
        [
            name,
            str(threads),
            str(len(boxes)),
            f"{1e3 * seconds:.2f}",
            f"{len(boxes) / seconds:.0f}",
            f"{slow / seconds:.2f}",
        ]
        for name, seconds in medians.items()
    ]


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """The median of each call's seconds, of rounds in which each follows a rest and a call that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(_REST)
            # what the rest let cool down
            call()
            started = clock()
            call()
            times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
