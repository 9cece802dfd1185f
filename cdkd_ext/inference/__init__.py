"""Predicting and drawing poses: torch, numpy, OpenCV and safetensors are all that it needs."""

from cdkd_ext.images import read_image, save_image
from cdkd_ext.inference.drawing import draw_pose, enlarge, enlarge_points, tile
from cdkd_ext.inference.predict import Predictions, predict, predict_crops
from cdkd_ext.inference.predictor import Poses, Predictor

__all__ = [
    "Poses",
    "Predictions",
    "Predictor",
    "draw_pose",
    "enlarge",
    "enlarge_points",
    "predict",
    "predict_crops",
    "read_image",
    "save_image",
    "tile",
]
