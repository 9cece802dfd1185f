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
from cdkd_ext.data.dataset import PoseDataset, View
from cdkd_ext.data.device_crops import crops_on_device, warp_crops
from cdkd_ext.data.mpii import load_mpii_persons
from cdkd_ext.data.person import ANNOTATED_BOXES, EvaluationSet, Person
from cdkd_ext.data.shard_writing import write_shards
from cdkd_ext.data.sharded_views import ShardedViews, build_sharded_views
from cdkd_ext.data.shards import Manifest, Shards
from cdkd_ext.data.stored_crops import StoredCrops, build_stored_crops

__all__ = [
    "ANNOTATED_BOXES",
    "Augmentation",
    "CropRegion",
    "DataConfig",
    "EvaluationSet",
    "Manifest",
    "Person",
    "PoseDataset",
    "ShardedViews",
    "Shards",
    "StoredCrops",
    "View",
    "build_sharded_views",
    "build_stored_crops",
    "crop_matrix",
    "crops_on_device",
    "fit_aspect",
    "invert_affine",
    "keypoint_category_id",
    "load_coco_detections",
    "load_coco_persons",
    "load_mpii_persons",
    "region_from_box",
    "transform_points",
    "warp_crop",
    "warp_crops",
    "write_shards",
]
