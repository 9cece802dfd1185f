"""Pose networks: by name, with the tensor names of the published weights."""

from cdkd_ext.codecs import HeatmapOutput, SimCCOutput
from cdkd_ext.models.folding import inference_copy
from cdkd_ext.models.hourglass import extract_branch
from cdkd_ext.models.pose_network import PoseNetwork, channels_last, normalize_images
from cdkd_ext.models.profile import (
    ModelProfile,
    count_macs,
    count_parameters,
    format_profiles,
    paper_gflops,
    profile_models,
)
from cdkd_ext.models.registry import create_model, describe_models, describe_published, list_models
from cdkd_ext.models.spec import ModelOptions, ModelSpec

__all__ = [
    "HeatmapOutput",
    "ModelOptions",
    "ModelProfile",
    "ModelSpec",
    "PoseNetwork",
    "SimCCOutput",
    "channels_last",
    "count_macs",
    "count_parameters",
    "create_model",
    "describe_models",
    "describe_published",
    "extract_branch",
    "format_profiles",
    "inference_copy",
    "list_models",
    "normalize_images",
    "paper_gflops",
    "profile_models",
]
