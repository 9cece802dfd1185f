"""A network that `cdkd export` wrote: onnxruntime and numpy run it, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.inference.crop_network import Array, CropNetwork, transformed
from cdkd_ext.joints import JointSet
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.resampling import RESAMPLINGS, Resample

# the key that marks such a file; its value is the version of this package that wrote it
VERSION_KEY = "cdkd_ext"


class ExportedNetwork(CropNetwork):
    """A pose network in an ONNX file that takes crops as they are and returns keypoints.

    Its input ``images`` is RGB uint8 (N, h, w, 3) with any N, its outputs are ``keypoints`` float32 (N, J, 2) in pixels of
    the crops and ``scores`` float32 (N, J); all else is in the graph.

    Args:
        file: the graph, whose metadata has the joints, the crop's size and padding, and whether it flips.
        flip_test: what the file has to do; None takes it as it is.

    Attributes:
        flip_test: whether the graph averages with the mirrored crop.
        metadata: all that was written beside the graph.

    Raises:
        InputError: the file is none of `cdkd export`, is damaged, or does not flip as is asked for.
    """

    def __init__(self, file: OnnxFile, *, flip_test: bool | None = None) -> None:
        self.metadata = read_metadata(file.metadata, str(file.path))
        self._file = file
        self.joints: JointSet = self.metadata["joints"]
        self.padding: float = self.metadata["padding"]
        self.resample: Resample = self.metadata["resample"]
        self.unbiased_crop: bool = self.metadata["unbiased_crop"]
        self.input_size: tuple[int, int] = self.metadata["input_size"]
        self.score_threshold = self.metadata["score_threshold"]
        self.flip_test: bool = self.metadata["flip_test"]
        expected = f"{self.flip_test}, as {file.path} was exported (`cdkd export --flip_test`)"
        check(flip_test in (None, self.flip_test), "flip_test", flip_test, expected)

    def __call__(self, crops: npt.NDArray[np.uint8], to_image: Array) -> tuple[Array, Array]:
        """See `CropNetwork`."""
        said = self._file({"images": np.ascontiguousarray(crops)})
        return transformed(said["keypoints"], to_image), said["scores"]


def is_exported(file: OnnxFile) -> bool:
    """Whether `cdkd export` wrote the file."""
    return VERSION_KEY in file.metadata


def read_metadata(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
    """Read what `cdkd export` writes beside a graph.

    Args:
        metadata: texts by name.
        source: the file, for messages.

    Returns:
        The values by name: "joints" (a `JointSet`), "input_size" (height, width), "padding", "resample", "unbiased_crop",
        "score_threshold", "flip_test", "precision", "model" (the description of the network) and perhaps "license".

    Raises:
        InputError: something is missing or damaged.
    """
    check(VERSION_KEY in metadata, source, "a file without the joints of its network", "one of `cdkd export`")
    try:
        values: dict[str, Any] = {
            "model": json.loads(metadata["model"]),
            "padding": float(json.loads(metadata["padding"])),
            "resample": metadata["resample"],
            "unbiased_crop": bool(json.loads(metadata["unbiased_crop"])),
            "score_threshold": float(json.loads(metadata["score_threshold"])),
            "flip_test": bool(json.loads(metadata["flip_test"])),
            "precision": metadata["precision"],
            "license": metadata.get("license"),
        }
        height, width = map(int, json.loads(metadata["input_size"]))
        category = json.loads(metadata["joints"])
    except (KeyError, TypeError, ValueError) as error:
        fail(f"{source}: metadata", f"{type(error).__name__} {error}", "what `cdkd export` writes")
    check_option(f"{source}: resample", values["resample"], RESAMPLINGS)
    return values | {
        "input_size": (height, width),
        "joints": JointSet.from_category(category, f"{source}: joints"),
    }
