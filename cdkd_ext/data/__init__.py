"""Data sets of people in images: COCO-format and MPII files, footage without labels, crops, augmentation, stored views.

Each name is imported when it is asked for: cutting crops and reading videos needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names

if TYPE_CHECKING:
    from cdkd_ext.data.augmentation import Augmentation
    from cdkd_ext.data.box_file import read_boxes
    from cdkd_ext.data.camera_faults import add_camera_faults
    from cdkd_ext.data.coco import keypoint_category_id, load_coco_detections, load_coco_persons
    from cdkd_ext.data.config import DataConfig
    from cdkd_ext.data.crops import (
        CropRegion,
        crop_matrix,
        crops_of_boxes,
        fit_aspect,
        invert_affine,
        region_from_box,
        transform_points,
        warp_crop,
    )
    from cdkd_ext.data.dataset import PoseDataset, View
    from cdkd_ext.data.device_crops import crops_on_device, warp_crops
    from cdkd_ext.data.far_crops import crop_from_afar
    from cdkd_ext.data.footage import Footage, load_footage
    from cdkd_ext.data.frames import VideoFrames, extract_frames
    from cdkd_ext.data.mixed_batches import MixedBatches
    from cdkd_ext.data.mpii import load_mpii_persons
    from cdkd_ext.data.near_duplicates import NearDuplicates, difference_hash
    from cdkd_ext.data.person import ANNOTATED_BOXES, EvaluationSet, Person
    from cdkd_ext.data.photometric import Photometric
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
    "Photometric",
    "PoseDataset",
    "ShardedViews",
    "Shards",
    "StoredCrops",
    "VideoFrames",
    "View",
    "add_camera_faults",
    "build_sharded_views",
    "build_stored_crops",
    "crop_from_afar",
    "crop_matrix",
    "crops_of_boxes",
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

# name: the module that it is imported from when it is asked for
_LATE = {
    "ANNOTATED_BOXES": "data.person",
    "Augmentation": "data.augmentation",
    "CropRegion": "data.crops",
    "DataConfig": "data.config",
    "EvaluationSet": "data.person",
    "Footage": "data.footage",
    "Manifest": "data.shards",
    "MixedBatches": "data.mixed_batches",
    "NearDuplicates": "data.near_duplicates",
    "Person": "data.person",
    "Photometric": "data.photometric",
    "PoseDataset": "data.dataset",
    "ShardedViews": "data.sharded_views",
    "Shards": "data.shards",
    "StoredCrops": "data.stored_crops",
    "VideoFrames": "data.frames",
    "View": "data.dataset",
    "add_camera_faults": "data.camera_faults",
    "build_sharded_views": "data.sharded_views",
    "build_stored_crops": "data.stored_crops",
    "crop_from_afar": "data.far_crops",
    "crop_matrix": "data.crops",
    "crops_of_boxes": "data.crops",
    "crops_on_device": "data.device_crops",
    "difference_hash": "data.near_duplicates",
    "extract_frames": "data.frames",
    "fit_aspect": "data.crops",
    "invert_affine": "data.crops",
    "keypoint_category_id": "data.coco",
    "load_coco_detections": "data.coco",
    "load_coco_persons": "data.coco",
    "load_footage": "data.footage",
    "load_mpii_persons": "data.mpii",
    "read_boxes": "data.box_file",
    "region_from_box": "data.crops",
    "transform_points": "data.crops",
    "warp_crop": "data.crops",
    "warp_crops": "data.device_crops",
    "write_shards": "data.shard_writing",
}

__getattr__, __dir__ = late_names(globals(), _LATE)
