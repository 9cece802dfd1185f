"""Accuracy of predicted poses."""

from cdkd_ext.evaluation.accuracy import people_accuracy
from cdkd_ext.evaluation.agreement import agreement
from cdkd_ext.evaluation.coco import (
    coco_keypoint_ap,
    coco_results,
    instance_scores,
    object_keypoint_similarity,
    oks_nms,
)
from cdkd_ext.evaluation.evaluate import evaluate_checkpoint, evaluate_people
from cdkd_ext.evaluation.hits import JointHits, joint_hits, limb_joints
from cdkd_ext.evaluation.metrics import describe, measure, submission, table
from cdkd_ext.evaluation.pckh import PckhResult, pckh
from cdkd_ext.evaluation.teacher_check import TeacherCheck, check_teacher

__all__ = [
    "JointHits",
    "PckhResult",
    "TeacherCheck",
    "agreement",
    "check_teacher",
    "coco_keypoint_ap",
    "coco_results",
    "describe",
    "evaluate_checkpoint",
    "evaluate_people",
    "instance_scores",
    "joint_hits",
    "limb_joints",
    "measure",
    "object_keypoint_similarity",
    "oks_nms",
    "pckh",
    "people_accuracy",
    "submission",
    "table",
]
