"""The operators in ATen's, for exporters: graphs that other programs run know nothing of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cdkd_ext.ops import reference
from cdkd_ext.ops import simcc_decode as _registered  # noqa: F401  the operator must be there to be named


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What `torch.export.ExportedProgram.run_decompositions` takes to lower `simcc_decode`, the operator of inference.

    Returns:
        ATen's default table with `cdkd_ext.ops.reference.simcc_decode` for the operator.

    Example:
        ```python
        program = torch.export.export(network, (crops,)).run_decompositions(decompositions())
        torch.onnx.export(program, (crops,), "network.onnx")
        ```
    """
    table = dict(torch.export.default_decompositions())
    table[torch.ops.cdkd.simcc_decode.default] = reference.simcc_decode
    return table
