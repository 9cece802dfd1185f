"""Data sets of people in images: COCO-format and MPII files, paired-resolution crops, augmentation, cached views."""

from cdkd_ext.data.augmentation import Augmentation
from cdkd_ext.data.coco import keypoint_category_id, load_coco_detections, load_coco_persons
from cdkd_ext.data.config import DataConfig
from cdkd_ext.data.crops import (
    CropRegion,
    crop_matrix,
    fit_aspect,
    invert_affine,
    region_from_box,
    transform_points,
    warp_crop,
)
from cdkd_ext.data.dataset import PoseDataset
from cdkd_ext.data.mpii import load_mpii_persons
from cdkd_ext.data.person import EvaluationSet, Person

__all__ = [
    "Augmentation",
    "CropRegion",
    "DataConfig",
    "EvaluationSet",
    "Person",
    "PoseDataset",
    "crop_matrix",
    "fit_aspect",
    "invert_affine",
    "keypoint_category_id",
    "load_coco_detections",
    "load_coco_persons",
    "load_mpii_persons",
    "region_from_box",
    "transform_points",
    "warp_crop",
]
