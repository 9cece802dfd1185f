"""Weights from and to files, of this package and of others."""

from cdkd_ext.checkpoints.convert import convert_checkpoint
from cdkd_ext.checkpoints.foreign import CheckpointReport, export_checkpoint, load_checkpoint, read_weights
from cdkd_ext.checkpoints.native import load_model, save_model

__all__ = [
    "CheckpointReport",
    "convert_checkpoint",
    "export_checkpoint",
    "load_checkpoint",
    "load_model",
    "read_weights",
    "save_model",
]
