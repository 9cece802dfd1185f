"""Which images and annotations a command reads."""

from dataclasses import dataclass, field
from typing import Literal

from cdkd_ext.data.augmentation import Augmentation
from cdkd_ext.data.photometric import Photometric
from cdkd_ext.detectors import DetectionOptions
from cdkd_ext.resampling import Resample


@dataclass
class DataConfig:
    """Images and annotations; without a root, synthetic people are drawn.

    Args:
        root: folder that the paths below start from; None draws people into the output folder.
        format: "coco" for COCO-format keypoint files with any joints, "mpii" for MPII's train.json and valid.json.
        train: training annotations (JSON); None leaves the footage of `images` alone to train on.
        train_images: folder of the training images.
        val: validation annotations (JSON); None trains without them: agreement with the teacher chooses the best checkpoint
            (see `metric`), and without a teacher it is the last one.
        val_images: folder of the validation images.
        joints: "coco", "mpii", or a YAML file of the joint set, for COCO-format files whose category does not
            say it.
        category: name or id of the people's category in COCO-format files; None takes all that share the joints, or
            the one called person.
        boxes: a detector's boxes for the validation images, in COCO's results format; None uses the annotated ones.
        min_box_score: boxes of a file with a smaller score are left out.
        clip_boxes: cut annotated COCO boxes to the image as the published COCO code does.
        head_boxes: MPII's official gt_valid.mat, with the head rectangles of the validation people.
        metric: "pckh", "AP" (COCO's), or "auto": PCKh where people have a head length, else AP. "agreement" chooses a
            distillation's best checkpoint without labels: the percentage of the joints that the teacher is sure of which
            the student puts within a twentieth of the crop's longer side, on the people to validate on, or else on some who
            are kept aside (`watched_people`); "auto" takes it where there is nobody to validate on and at least twenty people
            to learn from. "none" is for an evaluation that only predicts, such as for COCO's test-dev, and lets the last
            checkpoint of a training without `val` be the best.
        upright: turn the data set's images as their EXIF orientation tags say, where the annotations are of images so turned;
            without it pixels are taken as they are stored, which is COCO's convention.
        min_keypoints: training people with fewer annotated joints are left out; with 0, people without any distil.
        synthetic_people: how many training people to draw where there is no root; an eighth as many for validation.
        labelled_fraction: share of the training people whose labels are used; the others only distil.
        padding: how much larger than the box the crop is; None takes what the weights (`model.weights`, else the
            teacher's) were trained with where they say it, else 1.25.
        resample: how crops are made of people who have more pixels in the image: "area" takes means, as a camera far away
            would, "linear" one sample per pixel, as the paper does and OpenCV by default; None takes what a run that goes on or
            the weights (`model.weights`) were trained with where they say it, else "area". A teacher's crops are as its
            own description says.
        augmentation: random scale, rotation, flip and half-body crops.
        photometric: random colours and holes: `brightness`, `contrast`, `saturation`, `hue`, `grid_dropout`, `grid_unit`. A
            teacher's crops of the same view have the same colours, and no holes. Not together with `stored_crops`.
        camera_faults: strength, 0 to 1, of what a worse camera does to the student's crops: blur, fewer pixels, exposure,
            noise, JPEG. The teacher's crops stay as they are, and so do those that a training validates on. Not together
            with `stored_crops`.
        views: 0 augments afresh in every epoch; n > 0 draws n fixed views per person once, which also lets the
            teacher's outputs be computed once.
        mirror_views: take each fixed view and its mirror image, which are made as they are read: n stored views are 2n.
        teacher_cache: how the teacher's outputs for fixed views are stored: "dense" in half precision, or "compact" in some 3
            KB per view for 17 joints, in shards that several processes fill (`cdkd cache`); SAPE's feature maps are stored as
            half floats in both.
        view_images: the student's fixed crops, "raw" or "jpeg" (quality 95, about half the room at 32×32); with "jpeg" or a
            compact teacher cache they lie in shards as well.
        stored_crops: decode each image once, store one uint8 crop per person, half as large again as the largest
            network's, and warp it on the training's device: what keeps a GPU busy. Not together with `views`.
        cache: folder for stored crops, fixed views and teacher outputs, shared by runs; None uses the output folder.
        workers: processes that load images.
        images: footage without labels for distillation: images, folders, globs and videos, or a list of these; beside the
            labelled people, or alone where there is no root.
        image_boxes: boxes of the footage's people: a file in COCO's results format or of lines `image,x,y,w,h[,score]`, or
            "whole" where each image shows one person.
        detector: the ONNX file of a person detector that finds the footage's people.
        detection: how the detector's file is read, and which of its boxes are kept.
        frames: frames of each video, evenly over its length.
        every: take every n-th frame of each video instead; 0 goes by `frames`.
        near_duplicates: images of the footage whose perceptual hash differs from an earlier one's in so many of 256 bits
            or fewer are left out; below 0 all stay.
        near_duplicate_people: people of the footage whose boxes' content has a perceptual hash that differs from an earlier
            person's in so many of 256 bits or fewer are left out, such as 16; below 0 all stay.
        unlabelled_share: share of each batch that is people without labels, of the footage or of the data set; None takes
            people as they come.
    """

    root: str | None = None
    format: Literal["coco", "mpii"] = "coco"
    train: str | None = "train/annotations.json"
    train_images: str = "train/images"
    val: str | None = "val/annotations.json"
    val_images: str = "val/images"
    joints: str | None = None
    category: str | None = None
    boxes: str | None = None
    min_box_score: float = 0.0
    clip_boxes: bool = False
    head_boxes: str | None = None
    metric: Literal["auto", "pckh", "AP", "agreement", "none"] = "auto"
    upright: bool = False
    min_keypoints: int = 0
    synthetic_people: int = 6000
    labelled_fraction: float = 1.0
    padding: float | None = None
    resample: Resample | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    photometric: Photometric = field(default_factory=Photometric)
    camera_faults: float = 0.0
    views: int = 0
    mirror_views: bool = False
    teacher_cache: Literal["dense", "compact"] = "dense"
    view_images: Literal["raw", "jpeg"] = "raw"
    stored_crops: bool = False
    cache: str | None = None
    workers: int = 2
    images: list[str] | str | None = None
    image_boxes: str | None = None
    detector: str | None = None
    detection: DetectionOptions = field(default_factory=DetectionOptions)
    frames: int = 200
    every: int = 0
    near_duplicates: int = 4
    near_duplicate_people: int = -1
    unlabelled_share: float | None = None
