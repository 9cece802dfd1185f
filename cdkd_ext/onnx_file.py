"""Networks in ONNX files, run by onnxruntime."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, fail

Array = npt.NDArray[Any]
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
# protobuf: the text "location", then the length of another, seven bits a byte, the lowest first
_EXTERNAL = re.compile(rb"\x0a\x08location\x12([\x80-\xff]?[\x01-\x7f])", re.S)
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True)
class TensorInfo:
    """What a graph says about one of its inputs or outputs.

    Attributes:
        name: in the graph.
        shape: sizes; None where the graph leaves one open.
        dtype: of its elements.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({sizes}) {self.dtype}"


class OnnxFile:
    """Runs a network from an ONNX file, on a GPU where onnxruntime has one.

    Args:
        path: the file.
        threads: of one operator on a CPU; None leaves the choice to onnxruntime.
        cpu: stay on the CPU where there is a GPU.

    Attributes:
        path: the file.
        inputs: what the graph takes, by name.
        outputs: what it returns, by name.
        metadata: what its author wrote beside it.

    Raises:
        InputError: there is no such file, or it is no ONNX file that onnxruntime can run.
        ModuleNotFoundError: onnxruntime is not installed.

    Example:
        ```python
        network = OnnxFile("movenet.onnx")
        heatmap = network({"image": np.zeros((1, 256, 256, 3), np.float32)})["heatmap"]
        ```
    """

    def __init__(
        self, path: str | os.PathLike[str], *, threads: int | None = None, cpu: bool = False
    ) -> None:
        import onnxruntime

        self.path = Path(path)
        check(
            self.path.is_file(),
            str(path),
            "a folder" if self.path.is_dir() else "no such file",
            "an ONNX file",
        )
        check(threads is None or threads > 0, "threads", threads, "a positive number, or None")
        options = onnxruntime.SessionOptions()
        # what it says of an error is in the error
        options.log_severity_level = 4
        # else its threads spin for 60 ms after each call, on cores that the next network and OpenCV need
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        there = onnxruntime.get_available_providers()
        providers = [name for name in _PROVIDERS[cpu:] if name in there]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            fail(str(path), _one_line(error), "an ONNX file that onnxruntime can run")
        self.inputs = {info.name: info for info in map(self._info, self._session.get_inputs())}
        self.outputs = {info.name: info for info in map(self._info, self._session.get_outputs())}
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def _info(self, node: Any) -> TensorInfo:
        if node.type not in _TYPES:
            fail(str(self.path), f"{node.name} of type {node.type}", "tensors of numbers")
        # an open size has a name, or nothing
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape or ())
        return TensorInfo(node.name, shape, np.dtype(_TYPES[node.type]))

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network on arrays by name.

        Returns:
            Every output by name.

        Raises:
            InputError: an input is missing, or of a shape or type that the graph does not take.
        """
        try:
            results = self._session.run(None, dict(inputs))
        except Exception as error:
            fail(str(self.path), _one_line(error), "inputs " + ", ".join(map(str, self.inputs.values())))
        return dict(zip(self.outputs, results, strict=True))

    def for_each(self, images: Array) -> dict[str, Array]:
        """Run the network, which has one input, on images (N, …), so many at a time where the graph fixes its batch.

        Returns:
            Every output by name, with N rows; without those that are single numbers, which say nothing of each image.

        Raises:
            InputError: the graph does not take such images.
        """
        (info,) = self.inputs.values()
        count = len(images)
        if not count:
            # whose rows are dropped, and shapes kept
            images = np.zeros((1, *images.shape[1:]), images.dtype)
        size = info.shape[0] or len(images)
        images = np.concatenate([images, np.repeat(images[-1:], -len(images) % size, 0)])
        parts = [self({info.name: images[start : start + size]}) for start in range(0, len(images), size)]
        return {
            name: np.concatenate([part[name] for part in parts])[:count]
            for name, first in parts[0].items()
            if first.ndim
        }


def onnx_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of an ONNX file with the weights that it keeps in other files (external data)."""
    path = Path(path)
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    named = {content[at.end() : at.end() + _length(at[1])] for at in _EXTERNAL.finditer(content)}
    for name in sorted(named):
        other = path.parent / os.fsdecode(name) if b"\0" not in name else path
        if other != path and other.is_file():
            digest.update(other.read_bytes())
    return digest.hexdigest()


def _length(coded: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(coded))


def is_cpu(device: object) -> bool:
    """Whether a device, such as ``cpu`` or ``cpu:0``, is the CPU; without torch."""
    return str(device).partition(":")[0] == "cpu"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
