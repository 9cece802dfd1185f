"""Pose networks: by name, with the tensor names of the published weights."""

from cdkd_ext.models.checkpoint import load_weights, read_weights
from cdkd_ext.models.folding import inference_copy
from cdkd_ext.models.pose_network import PoseNetwork, PoseOutput, channels_last, normalize_images
from cdkd_ext.models.profile import count_macs, count_parameters
from cdkd_ext.models.registry import create_model, list_models

__all__ = [
    "PoseNetwork",
    "PoseOutput",
    "channels_last",
    "count_macs",
    "count_parameters",
    "create_model",
    "inference_copy",
    "list_models",
    "load_weights",
    "normalize_images",
    "read_weights",
]
