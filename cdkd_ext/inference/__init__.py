"""Predicting and drawing poses.

Checkpoints need torch, numpy, OpenCV and safetensors; exported ONNX files numpy, OpenCV and onnxruntime, without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names

if TYPE_CHECKING:
    from cdkd_ext.images import read_image, save_image
    from cdkd_ext.inference.crop_network import CropNetwork
    from cdkd_ext.inference.drawing import draw_pose, draw_poses, enlarge, enlarge_points, tile
    from cdkd_ext.inference.exported_network import ExportedNetwork
    from cdkd_ext.inference.following import FramePoses
    from cdkd_ext.inference.foreign_network import ForeignNetwork
    from cdkd_ext.inference.mapped_network import MappedNetwork
    from cdkd_ext.inference.poses import Poses
    from cdkd_ext.inference.prediction import Predictions, predict, predict_crops
    from cdkd_ext.inference.predictor import Predictor
    from cdkd_ext.inference.sources import SourceFrame
    from cdkd_ext.inference.torch_network import TorchNetwork
    from cdkd_ext.inference.tracking import OneEuroFilter, Tracker

__all__ = [
    "CropNetwork",
    "ExportedNetwork",
    "ForeignNetwork",
    "FramePoses",
    "MappedNetwork",
    "OneEuroFilter",
    "Poses",
    "Predictions",
    "Predictor",
    "SourceFrame",
    "TorchNetwork",
    "Tracker",
    "draw_pose",
    "draw_poses",
    "enlarge",
    "enlarge_points",
    "predict",
    "predict_crops",
    "read_image",
    "save_image",
    "tile",
]

# name: the module that it is imported from when it is asked for
_LATE = {
    "CropNetwork": "inference.crop_network",
    "ForeignNetwork": "inference.foreign_network",
    "ExportedNetwork": "inference.exported_network",
    "FramePoses": "inference.following",
    "MappedNetwork": "inference.mapped_network",
    "OneEuroFilter": "inference.tracking",
    "Poses": "inference.poses",
    "Predictions": "inference.prediction",
    "Predictor": "inference.predictor",
    "SourceFrame": "inference.sources",
    "TorchNetwork": "inference.torch_network",
    "Tracker": "inference.tracking",
    "draw_pose": "inference.drawing",
    "draw_poses": "inference.drawing",
    "enlarge": "inference.drawing",
    "enlarge_points": "inference.drawing",
    "predict": "inference.prediction",
    "predict_crops": "inference.prediction",
    "read_image": "images",
    "save_image": "images",
    "tile": "inference.drawing",
}

__getattr__, __dir__ = late_names(globals(), _LATE)
