"""Training: teachers, plain students, distilled students."""

from cdkd_ext.training.config import (
    CCAConfig,
    DistillationConfig,
    LabelConfig,
    ModelConfig,
    OptimizerConfig,
    SAPEConfig,
    TemperatureConfig,
    TrainingConfig,
)
from cdkd_ext.training.loop import InterruptedRun, NonFiniteLossError, Trainer
from cdkd_ext.training.run import prepare_views, save_config, train
from cdkd_ext.training.task import PoseTask

__all__ = [
    "CCAConfig",
    "DistillationConfig",
    "InterruptedRun",
    "LabelConfig",
    "ModelConfig",
    "NonFiniteLossError",
    "OptimizerConfig",
    "PoseTask",
    "SAPEConfig",
    "TemperatureConfig",
    "Trainer",
    "TrainingConfig",
    "prepare_views",
    "save_config",
    "train",
]
