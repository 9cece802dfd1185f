"""Which images and annotations a command reads."""

from dataclasses import dataclass, field
from typing import Literal

from cdkd_ext.data.augmentation import Augmentation


@dataclass
class DataConfig:
    """Pictures and annotations; without a root, procedural figures are drawn.

    Args:
        root: folder that the paths below start from; None draws figures into the output folder.
        format: "coco" for COCO-format keypoint files with any joints, "mpii" for MPII's train.json and valid.json.
        train: training annotations (JSON).
        train_images: folder of the training pictures.
        val: validation annotations (JSON).
        val_images: folder of the validation pictures.
        joints: "coco", "mpii", or a YAML file of the joint set, for COCO-format files whose category does not tell it.
        boxes: a detector's boxes for the validation pictures, in COCO's results format; None uses the annotated ones.
        min_box_score: detected boxes with a smaller score are left out.
        clip_boxes: cut annotated COCO boxes to the picture as the published COCO code does.
        head_boxes: MPII's official gt_valid.mat, with the head rectangles of the validation people.
        metric: "pckh", "AP" (COCO's), "auto" (PCKh where people have a head length, else AP), or "none" for an
            evaluation that only predicts, such as for COCO's test-dev.
        min_keypoints: training people with fewer annotated joints are left out; with 0, people without any distil.
        figures: how many training figures to draw where there is no root; an eighth as many for validation.
        labelled_fraction: share of the training people whose labels are used; the others only distil.
        padding: how much larger than the box the crop is.
        augmentation: random scale, rotation, flip and half-body crops.
        views: 0 augments afresh in every epoch; n > 0 draws n fixed views per person once, which also lets the
            teacher's outputs be computed once.
        cache: folder for fixed views and teacher outputs, shared by runs; None uses the output folder.
        workers: processes that load pictures.
    """

    root: str | None = None
    format: Literal["coco", "mpii"] = "coco"
    train: str = "train/annotations.json"
    train_images: str = "train/images"
    val: str = "val/annotations.json"
    val_images: str = "val/images"
    joints: str | None = None
    boxes: str | None = None
    min_box_score: float = 0.0
    clip_boxes: bool = False
    head_boxes: str | None = None
    metric: Literal["auto", "pckh", "AP", "none"] = "auto"
    min_keypoints: int = 0
    figures: int = 6000
    labelled_fraction: float = 1.0
    padding: float = 1.25
    augmentation: Augmentation = field(default_factory=Augmentation)
    views: int = 0
    cache: str | None = None
    workers: int = 2
