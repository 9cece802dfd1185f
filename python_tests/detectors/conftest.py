"""Detectors whose answers are known: graphs that return constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WriteDetector = Callable[..., Path]


@pytest.fixture
def write_detector(tmp_path: Path) -> WriteDetector:
    """Writes a graph that takes an image and returns the given arrays, by name."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def write(
        outputs: dict[str, np.ndarray],
        shape: Sequence[Any] = (1, 3, 64, 64),
        *,
        kind: int = TensorProto.FLOAT,
        open_axes: bool = False,
        metadata: dict[str, str] | None = None,
        name: str = "detector.onnx",
    ) -> Path:
        values = [numpy_helper.from_array(array, f"{key}_value") for key, array in outputs.items()]
        nodes = [helper.make_node("Identity", [f"{key}_value"], [key]) for key in outputs]
        infos = [
            helper.make_tensor_value_info(
                key,
                helper.np_dtype_to_tensor_dtype(array.dtype),
                [
                    f"n{i}" if open_axes and i == array.ndim - 2 else size
                    for i, size in enumerate(array.shape)
                ],
            )
            for key, array in outputs.items()
        ]
        image = helper.make_tensor_value_info("images", kind, list(shape))
        graph = helper.make_graph(nodes, "detector", [image], infos, values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, metadata or {})
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return write
