"""Training: teachers, plain students, distilled students."""

from cdkd_ext.training.checkpoint import load_model, save_model
from cdkd_ext.training.config import (
    CCAConfig,
    DataConfig,
    DistillationConfig,
    LabelConfig,
    ModelConfig,
    OptimizerConfig,
    SAPEConfig,
    TemperatureConfig,
    TrainingConfig,
)
from cdkd_ext.training.convert import convert_checkpoint
from cdkd_ext.training.evaluate import evaluate_checkpoint, evaluate_people
from cdkd_ext.training.loop import InterruptedRun, NonFiniteLossError, Trainer
from cdkd_ext.training.run import prepare_views, save_config, train
from cdkd_ext.training.task import PoseTask
from cdkd_ext.training.teacher import FrozenTeacher

__all__ = [
    "CCAConfig",
    "DataConfig",
    "DistillationConfig",
    "FrozenTeacher",
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
    "convert_checkpoint",
    "evaluate_checkpoint",
    "evaluate_people",
    "load_model",
    "prepare_views",
    "save_config",
    "save_model",
    "train",
]
