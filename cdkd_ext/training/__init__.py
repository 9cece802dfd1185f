"""Training: teachers, plain students, distilled students.

`DistillationTask` needs torch and numpy alone; the rest, the extra `train`, is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names
from cdkd_ext.training.task import DistillationTask

if TYPE_CHECKING:
    from cdkd_ext.training.cache_plan import CachePlan, CacheRates, plan_cache, plan_text
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
    "CachePlan",
    "CacheRates",
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
    "plan_cache",
    "plan_text",
    "prepare_views",
    "read_config",
    "save_config",
    "train",
]

_LATE = {
    **dict.fromkeys(("distill", "distill_students", "prepare_views", "train"), "run"),
    **dict.fromkeys(("InterruptedRun", "NonFiniteLossError", "Trainer"), "loop"),
    **dict.fromkeys(("CachePlan", "CacheRates", "plan_cache", "plan_text"), "cache_plan"),
    **dict.fromkeys(("read_config", "save_config"), "files"),
}

__getattr__, __dir__ = late_names(
    globals(), {name: f"training.{_LATE.get(name, 'config')}" for name in __all__}
)
