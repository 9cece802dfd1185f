from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cdkd_ext.data import Augmentation, Person, PoseDataset, load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.joints import JointSet

JOINTS = JointSet(("nose", "left_hand", "right_hand"), (0, 2, 1))
POINTS = np.array([[100.4, 70.2], [72.5, 95.0], [130.0, 88.7]], np.float32)
ALL_ON = Augmentation(scale=0.25, rotation=60.0, rotation_probability=1.0)


@pytest.fixture
def blobs(tmp_path: Path) -> Person:
    """A picture with a red blob at the nose, a green one at the left hand, a blue one at the right hand."""
    rows, columns = np.mgrid[:160, :200]
    planes = [255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50) for x, y in POINTS.tolist()]
    picture = np.stack(planes, axis=2).round().astype(np.uint8)
    path = tmp_path / "blobs.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    box = np.array([40, 30, 120, 110], np.float32)
    return Person(path, 1, 1, box, POINTS, np.ones(3, np.float32), 1e4, 20.0, (160, 200))


def centroids(image: Tensor) -> Tensor:
    """(3, 2): the centre of mass of each channel."""
    weight = image.double()
    weight = weight / weight.sum((1, 2), keepdim=True)
    y = (weight.sum(2) * torch.arange(image.shape[1])).sum(1)
    x = (weight.sum(1) * torch.arange(image.shape[2])).sum(1)
    return torch.stack([x, y], dim=1).float()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_joints_lie_on_their_pixels_in_both_crops(blobs: Person) -> None:
    dataset = PoseDataset([blobs], JOINTS, size=(32, 32), teacher_size=(128, 128), augmentation=ALL_ON)
    flips = 0
    for view in range(40):
        sample = dataset[0, view]
        # channels follow the picture, joints change sides where the picture is mirrored
        mirrored = torch.det(sample["to_image"][:, :2]) < 0
        keypoints = sample["keypoints"][[0, 2, 1]] if mirrored else sample["keypoints"]
        flips += int(mirrored)
        torch.testing.assert_close(centroids(sample["image"]), keypoints, atol=0.15, rtol=0)
        torch.testing.assert_close(centroids(sample["teacher_image"]), 4 * keypoints, atol=0.15, rtol=0)
    assert 10 < flips < 30


def test_a_fraction_labels_one_at_least_of_those_who_have_labels(blobs: Person) -> None:
    nobody = replace(blobs, annotated=np.zeros(3, np.float32))
    for seed in range(12):
        people = [nobody] * 5 + [blobs]
        dataset = PoseDataset(people, JOINTS, size=(8, 8), seed=seed, labelled_fraction=0.2)
        assert dataset.labelled.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (40, 80)])
def test_to_image_leads_back(blobs: Person, size: tuple[int, int]) -> None:
    dataset = PoseDataset([blobs], JOINTS, size=size, augmentation=ALL_ON)
    for view in range(10):
        sample = dataset[0, view]
        matrix = sample["to_image"]
        points = sample["keypoints"] @ matrix[:, :2].T + matrix[:, 2]
        if torch.det(matrix[:, :2]) < 0:
            points = points[[0, 2, 1]]
        torch.testing.assert_close(points, torch.from_numpy(POINTS), atol=1e-3, rtol=0)


def test_golden_plain_sample(blobs: Person) -> None:
    sample = PoseDataset([blobs], JOINTS, size=(32, 32), teacher_size=(64, 64))[0]
    # centre (100, 85), side 120 x 1.25
    expected = (torch.from_numpy(POINTS) - torch.tensor([100.0, 85.0])) * (32 / 150) + 16
    torch.testing.assert_close(sample["keypoints"], expected)
    assert {key: (tuple(value.shape), value.dtype) for key, value in sample.items()} == {
        "image": ((3, 32, 32), torch.uint8),
        "teacher_image": ((3, 64, 64), torch.uint8),
        "keypoints": ((3, 2), torch.float32),
        "annotated": ((3,), torch.float32),
        "labelled": ((), torch.float32),
        "to_image": ((2, 3), torch.float32),
        "index": ((), torch.int64),
    }
    assert sample["labelled"] == 1 and sample["index"] == 0


def test_teacher_size_changes_nothing_else(blobs: Person) -> None:
    alone = PoseDataset([blobs], JOINTS, size=(32, 32), augmentation=ALL_ON)[0, 5]
    paired = PoseDataset([blobs], JOINTS, size=(32, 32), teacher_size=(96, 96), augmentation=ALL_ON)[0, 5]
    paired.pop("teacher_image")
    assert equal(alone, paired)


def test_randomness_comes_from_seed_index_and_view_only(blobs: Person) -> None:
    def make(seed: int) -> PoseDataset:
        return PoseDataset([blobs, blobs], JOINTS, size=(32, 32), augmentation=ALL_ON, seed=seed)

    dataset = make(3)
    np.random.seed(1)
    first = dataset[1, 4]
    dataset[0, 0], dataset[1, 5]
    np.random.seed(2)
    assert equal(first, dataset[1, 4]) and equal(first, make(3)[np.int64(1), np.int64(4)])
    assert equal(first, pickle.loads(pickle.dumps(dataset))[1, 4])
    assert equal(dataset[1], dataset[1, 0])
    others = [dataset[0, 4], dataset[1, 5], make(4)[1, 4]]
    assert not any(torch.equal(first["to_image"], other["to_image"]) for other in others)


def test_workers_give_the_same_pixels(blobs: Person) -> None:
    dataset = PoseDataset([blobs] * 6, JOINTS, size=(16, 16), teacher_size=(32, 32), augmentation=ALL_ON)
    keys = [(index, view) for view in range(2) for index in range(6)]

    def batches(workers: int) -> list[dict[str, Tensor]]:
        return list(DataLoader(dataset, batch_size=4, sampler=keys, num_workers=workers))  # type: ignore[arg-type]

    alone = batches(0)
    assert alone[0]["image"].shape == (4, 3, 16, 16) and alone[0]["index"].tolist() == [0, 1, 2, 3]
    assert all(equal(a, b) for a, b in zip(alone, batches(2), strict=True))


def test_views_do_not_matter_without_augmentation(blobs: Person) -> None:
    dataset = PoseDataset([blobs], JOINTS, size=(32, 32))
    assert equal(dataset[0], dataset[0, 9])


def test_invisible_joints_are_zero_and_change_sides(blobs: Person) -> None:
    person = replace(blobs, annotated=np.array([1, 0, 1], np.float32))
    dataset = PoseDataset([person], JOINTS, size=(32, 32), augmentation=ALL_ON)
    seen = set()
    for view in range(12):
        sample = dataset[0, view]
        mirrored = bool(torch.det(sample["to_image"][:, :2]) < 0)
        seen.add(mirrored)
        assert sample["annotated"].tolist() == ([1, 1, 0] if mirrored else [1, 0, 1])
        assert not sample["keypoints"][sample["annotated"] == 0].any()
    assert seen == {True, False}


def test_joints_outside_of_the_crop_stay_visible(blobs: Person) -> None:
    person = replace(blobs, box=np.array([95, 65, 12, 12], np.float32))
    sample = PoseDataset([person], JOINTS, size=(32, 32))[0]
    assert sample["annotated"].tolist() == [1, 1, 1]
    assert sample["keypoints"][2, 0] > 32


def test_labelled_subset_is_fixed_and_nested(blobs: Person) -> None:
    def labelled(fraction: float, seed: int = 0) -> set[int]:
        dataset = PoseDataset([blobs] * 40, JOINTS, size=(8, 8), seed=seed, labelled_fraction=fraction)
        return set(np.flatnonzero(dataset.labelled).tolist())

    assert [len(labelled(fraction)) for fraction in (0, 0.001, 0.25, 0.5, 1)] == [0, 1, 10, 20, 40]
    assert labelled(0.25) < labelled(0.5)
    assert labelled(0.25) == labelled(0.25) != labelled(0.25, seed=1)


def test_unlabelled_samples_show_no_label(blobs: Person) -> None:
    """The crops must not tell either: half-body crops are drawn from the joints."""
    augmentation = Augmentation(half_body=1.0, half_body_min_joints=1)
    moved = replace(blobs, keypoints=POINTS + 20)
    arguments: dict[str, Any] = {"size": (32, 32), "augmentation": augmentation, "labelled_fraction": 0.0}
    samples = [PoseDataset([person], JOINTS, **arguments)[0, 1] for person in (blobs, moved)]
    assert equal(*samples)
    assert (
        samples[0]["labelled"] == 0
        and not samples[0]["annotated"].any()
        and not samples[0]["keypoints"].any()
    )


def test_half_body_crops_differ_with_labels(blobs: Person) -> None:
    legs = JointSet(("nose", "left_hand", "right_hand", "left_knee", "right_knee"), (0, 2, 1, 4, 3))
    points = np.vstack([POINTS, [[90, 130], [110, 130]]]).astype(np.float32)
    person = replace(blobs, keypoints=points, annotated=np.ones(5, np.float32))
    augmentation = Augmentation(scale=0, rotation=0, flip=0, half_body=1.0, half_body_min_joints=3)
    sample = PoseDataset([person], legs, size=(32, 32), augmentation=augmentation)[0]
    # two knees are no half: the upper body's mean lies in the middle
    torch.testing.assert_close(sample["keypoints"][:3].mean(0), torch.tensor([16.0, 16.0]), atol=1e-4, rtol=0)


def test_people_without_joints_are_not_labelled(blobs: Person) -> None:
    nobody = replace(blobs, annotated=np.zeros(3, np.float32))
    dataset = PoseDataset([blobs, nobody], JOINTS, size=(8, 8))
    assert dataset.labelled.tolist() == [True, False]
    assert dataset[1]["labelled"] == 0


def test_iterating_ends(blobs: Person) -> None:
    assert len(list(PoseDataset([blobs] * 3, JOINTS, size=(8, 8)))) == 3  # type: ignore[call-overload]


def test_samples_do_not_share_memory_with_the_people(blobs: Person) -> None:
    dataset = PoseDataset([blobs], JOINTS, size=(8, 8))
    dataset[0]["annotated"].zero_()
    dataset[0]["keypoints"].zero_()
    assert dataset[0]["annotated"].all() and dataset[0]["keypoints"].all()


def test_broken_picture_is_named(blobs: Person) -> None:
    dataset = PoseDataset([blobs], JOINTS, size=(8, 8))
    blobs.image_path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"blobs\.png"):
        dataset[0]
    blobs.image_path.unlink()
    with pytest.raises(InputError, match=r"blobs\.png: .*No such file"):
        dataset[0]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"persons": []}, "persons"),
        ({"joints": JointSet(("left_a", "right_a"), (1, 0))}, r"persons\[0\]\.keypoints"),
        ({"size": (32,)}, "size"),
        ({"size": (32, 0)}, "size"),
        ({"size": (32.0, 32)}, "size"),
        ({"teacher_size": (64, 48)}, "teacher_size"),
        ({"seed": -1}, "seed"),
        ({"labelled_fraction": 1.5}, "labelled_fraction"),
        ({"labelled_fraction": float("nan")}, "labelled_fraction"),
        ({"padding": 0}, "padding"),
    ],
)
def test_bad_arguments(blobs: Person, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: "):
        PoseDataset(**{"persons": [blobs], "joints": JOINTS, "size": (32, 32), **arguments})


def test_bad_indices(blobs: Person) -> None:
    dataset = PoseDataset([blobs], JOINTS, size=(8, 8))
    for index in (-1, 1):
        with pytest.raises(IndexError, match="expected 0 to 0"):
            dataset[index]
    with pytest.raises(InputError, match="view"):
        dataset[0, -1]
    with pytest.raises(TypeError, match="augmentation"):
        PoseDataset([blobs], JOINTS, size=(8, 8), augmentation=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("lspet/train/annotations.json", "lspet/train/images"),
        ("coco_mini/annotations/person_keypoints_train2017.json", "coco_mini/train2017"),
    ],
)
def test_real_people(shared_data: Path, annotations: str, images: str) -> None:
    persons, joints = load_coco_persons(shared_data / annotations, shared_data / images)
    persons = persons[:24]
    dataset = PoseDataset(
        persons, joints, size=(32, 24), teacher_size=(128, 96), augmentation=Augmentation(half_body=0.3)
    )
    flip = list(joints.flip_permutation)
    for index, person in enumerate(persons):
        sample = dataset[index, 1]
        matrix = sample["to_image"]
        points = sample["keypoints"] @ matrix[:, :2].T + matrix[:, 2]
        annotated = sample["annotated"]
        if torch.det(matrix[:, :2]) < 0:
            points, annotated = points[flip], annotated[flip]
        assert torch.equal(annotated, torch.from_numpy(person.annotated))
        known = annotated > 0
        torch.testing.assert_close(
            points[known], torch.from_numpy(person.keypoints)[known], atol=0.01, rtol=1e-4
        )
        # the large crop, averaged down, is much like the small one
        small = torch.nn.functional.avg_pool2d(sample["teacher_image"].float(), 4)
        difference = (small - sample["image"].float()).abs().mean()
        shuffled = (small.flip(2) - sample["image"].float()).abs().mean()
        assert difference < shuffled


class _Threads(Dataset):
    """How many threads OpenCV has where a sample was loaded."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return 1

    def __getitem__(self, index):
        assert self.samples[index]
        return cv2.getNumThreads()


def test_opencv_keeps_the_threads_that_the_caller_gave_it(drawn_people):
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        persons, joints = load_coco_persons(
            drawn_people / "train/annotations.json", drawn_people / "train/images"
        )
        dataset = pickle.loads(pickle.dumps(PoseDataset(persons, joints, size=(32, 32))))
        assert dataset[0]["image"].shape == (3, 32, 32)
        assert cv2.getNumThreads() == 3
        # a loading process shares the processors with the others
        in_worker = next(iter(DataLoader(_Threads(dataset), num_workers=1, multiprocessing_context="fork")))
        assert in_worker.item() in (0, 1)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
