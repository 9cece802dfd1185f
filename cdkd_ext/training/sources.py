"""From the data configuration to data sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cdkd_ext._checks import check, fail
from cdkd_ext.data import JointSet, Person, PoseDataset, load_coco_persons
from cdkd_ext.data.figures import make_figures
from cdkd_ext.training.config import DataConfig


@dataclass(frozen=True)
class People:
    """The annotated people of a training run."""

    train: list[Person]
    val: list[Person]
    joints: JointSet


def prepare_figures(folder: Path, count: int, *, seed: int = 0, workers: int = 1) -> Path:
    """Draw the procedural figures unless they are there; return the folder to use as `data.root`."""
    for split, size, offset in (("train", count, 0), ("val", max(count // 8, 1), 1)):
        if not (folder / split / "annotations.json").exists():
            make_figures(folder / split, size, seed=2 * seed + offset, workers=workers)
    return folder


def load_validation(config: DataConfig) -> tuple[list[Person], JointSet]:
    """Read the validation annotations.

    Raises:
        InputError: there is no root, or a file is missing or malformed.
    """
    root = _existing_root(config)
    return load_coco_persons(root / config.val, root / config.val_images, joints=_told_joints(config))


def load_people(config: DataConfig, output: Path) -> People:
    """Read the annotations; draws procedural figures into `output` where there is no root.

    Raises:
        InputError: a file is missing or malformed, or the two files' joints differ.
    """
    if config.root is None:
        figures = prepare_figures(output / "figures", config.figures, workers=max(config.workers, 1))
        config = replace(config, root=str(figures))
    root = _existing_root(config)
    train, train_joints = load_coco_persons(
        root / config.train,
        root / config.train_images,
        joints=_told_joints(config),
        # people without labels can still distil
        min_keypoints=0,
    )
    val, val_joints = load_validation(config)
    check(
        train_joints.names == val_joints.names,
        f"{root / config.val}: categories[0].keypoints",
        ", ".join(val_joints.names),
        f"the joints of {root / config.train} ({', '.join(train_joints.names)})",
    )
    return People(train, val, train_joints)


def _existing_root(config: DataConfig) -> Path:
    if config.root is None:
        fail("data.root", "nothing", "the folder of a data set (--data.root FOLDER)")
    root = Path(config.root)
    check(root.is_dir(), "data.root", root, "an existing folder")
    return root


def _told_joints(config: DataConfig) -> JointSet | None:
    return JointSet.from_yaml(config.joints) if config.joints else None


def training_set(
    people: People,
    config: DataConfig,
    size: tuple[int, int],
    *,
    seed: int,
    teacher_size: tuple[int, int] | None,
) -> PoseDataset:
    """The augmented training people, cropped for the student and, given its size, for the teacher."""
    return PoseDataset(
        people.train,
        people.joints,
        size=size,
        teacher_size=teacher_size,
        augmentation=config.augmentation,
        seed=seed,
        labelled_fraction=config.labelled_fraction,
        padding=config.padding,
    )


def validation_set(
    persons: list[Person], joints: JointSet, config: DataConfig, size: tuple[int, int]
) -> PoseDataset:
    """The validation people, not augmented."""
    return PoseDataset(persons, joints, size=size, padding=config.padding)
