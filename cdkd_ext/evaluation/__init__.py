"""Accuracy of predicted poses."""

from cdkd_ext.evaluation.pckh import PckhResult, pckh
from cdkd_ext.evaluation.predict import Predictions, predict, predict_crops

__all__ = ["PckhResult", "Predictions", "pckh", "predict", "predict_crops"]
