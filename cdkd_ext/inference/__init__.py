"""Predicting and drawing poses."""

from cdkd_ext.inference.drawing import draw_pose, enlarge, enlarge_points, save_image, tile
from cdkd_ext.inference.predict import Predictions, predict, predict_crops
from cdkd_ext.inference.predictor import Poses, Predictor, read_rgb

__all__ = [
    "Poses",
    "Predictions",
    "Predictor",
    "draw_pose",
    "enlarge",
    "enlarge_points",
    "predict",
    "predict_crops",
    "read_rgb",
    "save_image",
    "tile",
]
