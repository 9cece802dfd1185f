"""From the data configuration to data sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cdkd_ext.data.coco import load_coco_detections, load_coco_persons
from cdkd_ext.data.config import DataConfig
from cdkd_ext.data.dataset import PoseDataset
from cdkd_ext.data.footage import Footage, check_footage, footage_folder, load_footage
from cdkd_ext.data.frames import Progress, no_progress
from cdkd_ext.data.json_object import JsonObject
from cdkd_ext.data.mpii import load_mpii_persons
from cdkd_ext.data.person import ANNOTATED_BOXES, EvaluationSet, Person
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.joints import JointSet, named_joints
from cdkd_ext.resampling import DEFAULT_RESAMPLE, Resample
from cdkd_ext.synthetic import draw_people

_ASIDE = 3  # the stream of who is kept aside


@dataclass(frozen=True)
class People:
    """The people of a training run.

    Attributes:
        train: the annotated people to train on; none where there is footage alone.
        val: the people to validate on, if there are any.
        joints: the joint set of all of them.
        footage: people without annotations.
        watched: people of whom nothing is learnt, to measure a student's agreement with its teacher on.
    """

    train: list[Person]
    val: EvaluationSet | None
    joints: JointSet
    footage: Footage | None = None
    watched: Sequence[Person] = ()


def parted(people: int, most: int, seed: int) -> tuple[list[int], list[int]]:
    """Keep some of the people aside: at most a tenth and at most so many, but at least one.

    Args:
        people: how many there are, at least two.
        most: how many are kept aside at most.
        seed: of the choice.

    Returns:
        The indices of those who are kept aside, and of the others, both in their order, so that neighbours share a
        decoded image.
    """
    order = np.random.default_rng([seed, _ASIDE]).permutation(people).tolist()
    count = max(1, min(most, people // 10))
    return sorted(order[:count]), sorted(order[count:])


def prepare_synthetic(
    folder: Path, count: int, *, validation: int | None = None, seed: int = 0, workers: int = 1
) -> Path:
    """Draw synthetic people unless they are there; return the folder to use as `data.root`.

    Args:
        folder: receives train/ and val/.
        count: people to train on.
        validation: people to validate on; None draws an eighth as many.
        seed: of the people; of another seed nobody is the same.
        workers: processes that draw.

    Raises:
        InputError: the people that are there are others.
    """
    others = max(count // 8, 1) if validation is None else validation
    for split, size, offset in (("train", count, 0), ("val", others, 1)):
        file = folder / split / "annotations.json"
        if not file.exists():
            draw_people(folder / split, size, seed=2 * seed + offset, workers=workers)
            continue
        known = JsonObject.read(file).value.get("info") or {}
        drawn = (known.get("count"), known.get("seed"))
        wanted = (size, 2 * seed + offset)
        expected = "as many of the same seed, or another folder"
        check(drawn == wanted, "data.synthetic_people", f"{size} where {file} has {drawn[0]}", expected)
    return folder


def load_validation(config: DataConfig) -> EvaluationSet:
    """Read the validation people and decide what they are measured by.

    Raises:
        InputError: there is no root, a file is missing or malformed, or nothing can be measured on the people.
    """
    root = _existing_root(config)
    if config.val is None:
        fail("data.val", "nothing", "the annotations to validate on")
    check_option("data.format", config.format, ("coco", "mpii"))
    annotations, images = root / config.val, root / config.val_images
    reference = "head_size of the annotations"
    boxes = ANNOTATED_BOXES
    if config.format == "mpii":
        check(config.boxes is None, "data.boxes", config.boxes, "nothing: MPII gives the people's places")
        _check_mpii(config)
        head_boxes = root / config.head_boxes if config.head_boxes else None
        persons, joints = load_mpii_persons(annotations, images, head_boxes=head_boxes)
        if head_boxes:
            reference = f"0.6 x the diagonal of the head boxes in {head_boxes}"
    else:
        check(config.head_boxes is None, "data.head_boxes", config.head_boxes, "nothing for COCO-format data")
        given = _given_joints(config)
        score, from_file = config.min_box_score, config.boxes or config.image_boxes
        check(
            from_file or score == 0, "data.min_box_score", score, "0 without a file of boxes (--data.boxes)"
        )
        if config.boxes:
            detections, score = root / config.boxes, config.min_box_score
            persons, joints = load_coco_detections(
                annotations,
                images,
                detections,
                joints=given,
                min_score=score,
                category=config.category,
            )
            boxes = f"detector's, {detections}" + (f", scores from {score}" if score else "")
        else:
            clip = config.clip_boxes
            persons, joints = load_coco_persons(
                annotations,
                images,
                joints=given,
                clip_boxes=clip,
                category=config.category,
                require_keypoints=False,
            )
    metric = _metric(config, persons, joints, annotations)
    return EvaluationSet(
        _turned(persons, config),
        joints,
        metric,
        annotations,
        boxes,
        reference,
        config.padding,
        config.category,
        config.resample,
    )


def _metric(
    config: DataConfig, persons: list[Person], joints: JointSet, source: Path
) -> Literal["pckh", "AP", "none"]:
    check_option("data.metric", config.metric, ("auto", "pckh", "AP", "agreement", "none"))
    lengths = any(person.head_size > 0 and math.isfinite(person.head_size) for person in persons)
    metric = config.metric
    if metric == "auto":
        metric = "pckh" if lengths or config.format == "mpii" else "AP"
    if metric in ("agreement", "none"):
        # agreement is with a teacher, not with annotations
        return "none"
    if metric == "AP":
        if joints.sigmas is None:
            expected = "OKS constants to measure AP with, or head_size of the people for PCKh"
            fail(f"{source}: sigmas of the joints", "none", expected)
        return "AP"
    if config.boxes:
        fail("data.metric", "pckh", "AP with a detector's boxes: they are nobody's, so no joint has a target")
    if not lengths and config.format == "mpii":
        expected = "the official gt_valid.mat (--data.head_boxes FILE), or head_size in the annotations"
        fail("data.head_boxes", "no head lengths", expected)
    check(lengths, f"{source}: head_size", "none", "head lengths to measure PCKh by, or data.metric AP")
    return "pckh"


def load_people(
    config: DataConfig,
    output: Path,
    *,
    teacher_joints: Callable[[], JointSet | None] | None = None,
    progress: Progress = no_progress,
) -> People:
    """Read the annotations, and find the people of the footage.

    Where there is neither a root nor footage, synthetic people are drawn into `output`; frames of videos and what a
    detector finds go into the folder `footage` of the cache, or of `output`.

    Args:
        config: the data.
        output: folder of the run.
        teacher_joints: gives the teacher's joints, which are the footage's where nothing else tells them.
        progress: called while footage is looked through.

    Raises:
        InputError: a file is missing or malformed, the two files' joints differ, or the footage shows nobody.
    """
    if config.images:
        check_footage(config)
    else:
        for name in ("detector", "image_boxes"):
            value = getattr(config, name)
            check(value is None, f"data.{name}", value, "nothing without footage (--data.images)")
    if not config.images and config.root is None:
        workers = max(config.workers, 1)
        drawn = prepare_synthetic(output / "synthetic", config.synthetic_people, workers=workers)
        config = replace(config, root=str(drawn))
    # first what is quick to read and shows most mistakes
    val = load_validation(config) if config.root is not None and config.val is not None else None
    if val is not None:
        check(config.metric != "none", "data.metric", "none", "a metric that tells which checkpoint is best")
    train, joints = labelled_people(config, val)
    if not config.images:
        expected = "annotations to train on, or footage (--data.images)"
        check(train, "data.train", "nothing", expected)
    if joints is None:
        joints = _given_joints(config) or (teacher_joints() if teacher_joints is not None else None)
    if joints is None:
        fail(
            "data.joints",
            "nothing",
            "the joints of people without annotations, which the teacher does not name",
        )
    footage = None
    if config.images:
        footage = load_footage(config, footage_folder(config, output), joints, progress=progress)
    return People(train, val, joints, footage)


def labelled_people(
    config: DataConfig, val: EvaluationSet | None = None
) -> tuple[list[Person], JointSet | None]:
    """Read the annotated people to train on, and the joints of these or of the validation people.

    Raises:
        InputError: a file is missing or malformed, or the joints are not those of the validation people.
    """
    if config.root is None or config.train is None:
        return [], None if val is None else val.joints
    root = _existing_root(config)
    annotations, images = root / config.train, root / config.train_images
    if config.format == "mpii":
        _check_mpii(config)
        train, joints = load_mpii_persons(annotations, images, min_keypoints=config.min_keypoints)
    else:
        train, joints = load_coco_persons(
            annotations,
            images,
            joints=_given_joints(config),
            min_keypoints=config.min_keypoints,
            clip_boxes=config.clip_boxes,
            category=config.category,
            require_keypoints=False,
        )
    if val is not None:
        check(
            joints.names == val.joints.names,
            f"{val.annotation_file}: categories[0].keypoints",
            ", ".join(val.joints.names),
            f"the joints of {annotations} ({', '.join(joints.names)})",
        )
    return _turned(train, config), joints


def _check_mpii(config: DataConfig) -> None:
    """Fail for options that MPII's format has no use for."""
    for name in ("joints", "category"):
        value = getattr(config, name)
        check(value is None, f"data.{name}", value, "nothing: MPII's format has its own")
    for name, unused in (("clip_boxes", False), ("min_box_score", 0.0)):
        value = getattr(config, name)
        check(value == unused, f"data.{name}", value, f"{unused}: MPII gives the people's places")


def _turned(persons: list[Person], config: DataConfig) -> list[Person]:
    """The people in images that are turned where the configuration says so."""
    return [replace(person, upright=True) for person in persons] if config.upright else persons


def _existing_root(config: DataConfig) -> Path:
    if config.root is None:
        fail("data.root", "nothing", "the folder of a data set (--data.root FOLDER)")
    root = Path(config.root)
    check(root.is_dir(), "data.root", root, "an existing folder")
    return root


def _given_joints(config: DataConfig) -> JointSet | None:
    return named_joints(config.joints) if config.joints else None


def training_set(
    people: People,
    config: DataConfig,
    size: tuple[int, int],
    *,
    padding: float,
    seed: int,
    teacher_size: tuple[int, int] | None,
    resample: Resample = DEFAULT_RESAMPLE,
    teacher_resample: Resample = DEFAULT_RESAMPLE,
    unbiased: bool = False,
    teacher_unbiased: bool = False,
) -> PoseDataset:
    """The augmented training people, cropped for the student and, given its size, for the teacher.

    Args:
        people: of `load_people`.
        config: augmentation, the camera's faults and the share of the people whose labels are used.
        size: (height, width) of the student's crops.
        padding: how much larger than the box a crop is.
        seed: of the views and of the choice of the labelled people.
        teacher_size: (height, width) of the teacher's crops; None draws none.
        resample: how the student's crops are made of larger regions.
        teacher_resample: the same of the teacher's.
        unbiased: whether the student's crops are, see `crop_matrix`.
        teacher_unbiased: the same of the teacher's.
    """
    return PoseDataset(
        people.train,
        people.joints,
        size=size,
        teacher_size=teacher_size,
        augmentation=config.augmentation,
        seed=seed,
        labelled_fraction=config.labelled_fraction,
        padding=padding,
        footage=people.footage.persons if people.footage else (),
        resample=resample,
        teacher_resample=teacher_resample,
        camera_faults=config.camera_faults,
        photometric=config.photometric,
        unbiased=unbiased,
        teacher_unbiased=teacher_unbiased,
    )
