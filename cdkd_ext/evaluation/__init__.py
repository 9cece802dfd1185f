"""Accuracy of predicted poses."""

from cdkd_ext.evaluation.coco import (
    SCORE_THRESHOLDS,
    coco_keypoint_ap,
    coco_results,
    instance_scores,
    object_keypoint_similarity,
    oks_nms,
)
from cdkd_ext.evaluation.measure import EvaluationSet, describe, measure, submission, table
from cdkd_ext.evaluation.pckh import PckhResult, pckh
from cdkd_ext.evaluation.predict import Predictions, predict, predict_crops

__all__ = [
    "SCORE_THRESHOLDS",
    "EvaluationSet",
    "PckhResult",
    "Predictions",
    "coco_keypoint_ap",
    "coco_results",
    "describe",
    "instance_scores",
    "measure",
    "object_keypoint_similarity",
    "oks_nms",
    "pckh",
    "predict",
    "predict_crops",
    "submission",
    "table",
]
