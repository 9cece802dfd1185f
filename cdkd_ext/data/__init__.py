"""Data sets of people in pictures: COCO-format and MPII files, paired-resolution crops, augmentation, labels."""

from cdkd_ext.data.augmentation import Augmentation
from cdkd_ext.data.coco import Person, keypoint_category_id, load_coco_detections, load_coco_persons
from cdkd_ext.data.codecs import bin_coordinates, gaussian_labels, hard_labels, num_bins
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
from cdkd_ext.data.figures import make_figures
from cdkd_ext.data.images import read_image
from cdkd_ext.data.joints import COCO_JOINTS, MPII_JOINTS, JointSet
from cdkd_ext.data.mpii import load_mpii_persons

__all__ = [
    "COCO_JOINTS",
    "MPII_JOINTS",
    "Augmentation",
    "CropRegion",
    "JointSet",
    "Person",
    "PoseDataset",
    "bin_coordinates",
    "crop_matrix",
    "fit_aspect",
    "gaussian_labels",
    "hard_labels",
    "invert_affine",
    "keypoint_category_id",
    "load_coco_detections",
    "load_coco_persons",
    "load_mpii_persons",
    "make_figures",
    "num_bins",
    "read_image",
    "region_from_box",
    "transform_points",
    "warp_crop",
]
