"""Low-resolution human pose estimation by cross-domain knowledge distillation.

The names below are imported when they are first used: `import cdkd_ext` alone imports neither torch nor any extra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cdkd_ext.errors import InputError

if TYPE_CHECKING:
    from cdkd_ext import ops
    from cdkd_ext.checkpoints import export_checkpoint as export
    from cdkd_ext.checkpoints import load_model
    from cdkd_ext.evaluation import evaluate_checkpoint as evaluate
    from cdkd_ext.inference import Predictor
    from cdkd_ext.models import create_model, list_models
    from cdkd_ext.training import DistillationTask, distill, train

    __version__: str

# name: where it is, and what it is called there
_LATE = {
    "DistillationTask": ("training", "DistillationTask"),
    "Predictor": ("inference", "Predictor"),
    "create_model": ("models", "create_model"),
    "distill": ("training", "distill"),
    "evaluate": ("evaluation", "evaluate_checkpoint"),
    "export": ("checkpoints", "export_checkpoint"),
    "list_models": ("models", "list_models"),
    "load_model": ("checkpoints", "load_model"),
    "train": ("training", "train"),
}

__all__ = [
    "DistillationTask",
    "InputError",
    "Predictor",
    "__version__",
    "create_model",
    "distill",
    "evaluate",
    "export",
    "list_models",
    "load_model",
    "ops",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("cdkd-ext")
    elif name == "ops":
        return import_module("cdkd_ext.ops")
    elif name in _LATE:
        value = _imported(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _imported(name: str) -> Any:
    package, attribute = _LATE[name]
    try:
        return getattr(import_module(f"cdkd_ext.{package}"), attribute)
    except ModuleNotFoundError as error:
        from cdkd_ext.extras import missing_extra

        sentence = missing_extra(error, f"cdkd_ext.{name}")
        if sentence is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
