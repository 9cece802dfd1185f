"""Pose networks: by name, with the tensor names of the published weights."""

from cdkd_ext.models.checkpoint import CheckpointReport, export_checkpoint, load_checkpoint, read_weights
from cdkd_ext.models.heatmaps import decode_heatmaps, heatmap_sigma, heatmap_targets
from cdkd_ext.models.pose_network import (
    HeatmapOutput,
    PoseNetwork,
    PoseOutput,
    channels_last,
    normalize_images,
)
from cdkd_ext.models.profile import (
    ModelProfile,
    count_macs,
    count_parameters,
    format_profiles,
    paper_gflops,
    profile_models,
)
from cdkd_ext.models.registry import create_model, list_models

__all__ = [
    "CheckpointReport",
    "HeatmapOutput",
    "ModelProfile",
    "PoseNetwork",
    "PoseOutput",
    "channels_last",
    "count_macs",
    "count_parameters",
    "create_model",
    "decode_heatmaps",
    "export_checkpoint",
    "format_profiles",
    "heatmap_sigma",
    "heatmap_targets",
    "list_models",
    "load_checkpoint",
    "normalize_images",
    "paper_gflops",
    "profile_models",
    "read_weights",
]
