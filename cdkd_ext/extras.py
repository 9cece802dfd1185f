"""Which optional packages belong to which extra."""

from __future__ import annotations

_PREDICT = ("cv2", "safetensors")
_ONNX = ("onnxruntime",)
_EXPORT = ("onnx", "onnxscript")
_ADAPT = ("onnx2torch",)
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
    if package == "torch":
        return f"torch is missing; {what} needs `pip install torch`, but to predict with an exported file"
    extras = {"predict": _PREDICT, "onnx": _ONNX, "export": _EXPORT, "adapt": _ADAPT, "train": _TRAIN}
    smallest = next((name for name, packages in extras.items() if package in packages), None)
    if smallest is None:
        return None
    # a larger extra does not bring what runs, writes and converts ONNX files, but for `adapt`, which brings all
    special = smallest in ("onnx", "export", "adapt") and extra != "adapt"
    extra = smallest if special else extra or smallest
    return f"{package} is missing; {what} needs `pip install 'cdkd-ext[{extra}]'`"
