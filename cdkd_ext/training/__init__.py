"""Training: teachers, plain students, distilled students.

`DistillationTask` needs torch and numpy alone; the rest, the extra `train`, is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cdkd_ext.training.task import DistillationTask

if TYPE_CHECKING:
    from cdkd_ext.training.config import (
        CCAConfig,
        DistillationConfig,
        LabelLossConfig,
        ModelConfig,
        OptimizerConfig,
        SAPEConfig,
        TemperatureConfig,
        TrainingConfig,
    )
    from cdkd_ext.training.files import read_config, save_config
    from cdkd_ext.training.loop import InterruptedRun, NonFiniteLossError, Trainer
    from cdkd_ext.training.run import distill, distill_students, prepare_views, train

__all__ = [
    "CCAConfig",
    "DistillationConfig",
    "DistillationTask",
    "InterruptedRun",
    "LabelLossConfig",
    "ModelConfig",
    "NonFiniteLossError",
    "OptimizerConfig",
    "SAPEConfig",
    "TemperatureConfig",
    "Trainer",
    "TrainingConfig",
    "distill",
    "distill_students",
    "prepare_views",
    "read_config",
    "save_config",
    "train",
]

_LATE = {
    **dict.fromkeys(("distill", "distill_students", "prepare_views", "train"), "run"),
    **dict.fromkeys(("InterruptedRun", "NonFiniteLossError", "Trainer"), "loop"),
    **dict.fromkeys(("read_config", "save_config"), "files"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE.get(name, 'config')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
