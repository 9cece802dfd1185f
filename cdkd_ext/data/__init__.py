"""Data sets of people in images: COCO-format and MPII files, footage without labels, crops, augmentation, stored views."""

from cdkd_ext.data.augmentation import Augmentation
from cdkd_ext.data.box_file import read_boxes
from cdkd_ext.data.camera_faults import add_camera_faults
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
from cdkd_ext.data.footage import Footage, load_footage
from cdkd_ext.data.frames import VideoFrames, extract_frames
from cdkd_ext.data.mixed_batches import MixedBatches
from cdkd_ext.data.mpii import load_mpii_persons
from cdkd_ext.data.near_duplicates import NearDuplicates, difference_hash
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
    "Footage",
    "Manifest",
    "MixedBatches",
    "NearDuplicates",
    "Person",
    "PoseDataset",
    "ShardedViews",
    "Shards",
    "StoredCrops",
    "VideoFrames",
    "View",
    "add_camera_faults",
    "build_sharded_views",
    "build_stored_crops",
    "crop_matrix",
    "crops_on_device",
    "difference_hash",
    "extract_frames",
    "fit_aspect",
    "invert_affine",
    "keypoint_category_id",
    "load_coco_detections",
    "load_coco_persons",
    "load_footage",
    "load_mpii_persons",
    "read_boxes",
    "region_from_box",
    "transform_points",
    "warp_crop",
    "warp_crops",
    "write_shards",
]
