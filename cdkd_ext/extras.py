"""Which optional packages belong to which extra."""

from __future__ import annotations

_PREDICT = ("cv2", "safetensors")
_ONNX = ("onnxruntime",)
_ADAPT = ("onnx", "onnx2torch")
_TRAIN = ("accelerate", "jsonargparse", "matplotlib", "pycocotools", "rich", "scipy", "tensorboard", "yaml")


def missing_extra(error: ModuleNotFoundError, what: str, extra: str | None = None) -> str | None:
    """One sentence on how to get a package that an import did not find.

    Args:
        error: of the import.
        what: what needs the package.
        extra: the extra with everything that `what` needs; None takes the smallest with this package.

    Returns:
        The sentence; None if the package belongs to no extra, which is a mistake of the installation.
    """
    package = (error.name or "").partition(".")[0]
    extras = {"predict": _PREDICT, "onnx": _ONNX, "train": _TRAIN, "adapt": _ADAPT}
    smallest = next((name for name, packages in extras.items() if package in packages), None)
    if smallest is None:
        return None
    # the extra `train` brings neither onnxruntime nor what adapting needs
    extra = smallest if smallest in ("onnx", "adapt") and extra != "adapt" else extra or smallest
    return f"{package} is missing; {what} needs `pip install 'cdkd-ext[{extra}]'`"
