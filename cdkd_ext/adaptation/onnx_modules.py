"""The library onnx2torch, imported where a part that it hardly needs is missing, and asked politely."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cdkd_ext.errors import fail

_OPTIONAL = ("torchvision", "torchvision.ops")


class _Missing(types.ModuleType):
    """Stands for a package that cannot be imported: what is taken from it fails once it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self.__name__}.{name}")

    def __call__(self, *arguments: object, **options: object) -> Any:
        fail(
            self.__name__,
            "no package torchvision that fits this torch",
            "one, for NMS and RoIAlign in a graph",
        )


@contextmanager
def _placeholders() -> Iterator[None]:
    """Let `import torchvision` find something within the block, where the package is absent or not for this torch."""
    try:
        import_module("torchvision.ops")
    except Exception:  # a build for another torch raises RuntimeError, and what else is its own matter
        _forget_torchvision()
        for name in _OPTIONAL:
            sys.modules[name] = _Missing(name)
        try:
            yield
        finally:
            _forget_torchvision()
    else:
        yield


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def onnx2torch() -> Any:
    """The package `onnx2torch`; importing it needs no torchvision.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if "onnx2torch" not in sys.modules:
        with _placeholders():
            import_module("onnx2torch")
    return sys.modules["onnx2torch"]


def unknown_operators(model: Any) -> list[str]:
    """The operators of an ONNX model that onnx2torch cannot convert, each once, with their domain if it is not ONNX's."""
    onnx2torch()
    converter = import_module("onnx2torch.node_converters").get_converter
    versions = {opset.domain: opset.version for opset in model.opset_import}
    unknown: dict[str, None] = {}
    for node in model.graph.node:
        try:
            converter(domain=node.domain, operation_type=node.op_type, version=versions.get(node.domain, 1))
        except NotImplementedError:
            unknown[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] = None
    return list(unknown)
