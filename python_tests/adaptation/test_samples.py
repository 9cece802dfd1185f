"""Crops with a teacher's keypoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdkd_ext.adaptation.resolutions import Resolutions
from cdkd_ext.adaptation.samples import AdaptationSamples, SteadyBatches
from cdkd_ext.data import Augmentation, PoseDataset, load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.teachers.pseudo_labels import PseudoLabels, unlabelled_person


@pytest.fixture(scope="module")
def dotted(official_data):
    """People on whose joints are dots, and labels that say where."""
    root = official_data / "coco"
    persons, _ = load_coco_persons(root / "annotations/person_keypoints_train2017.json", root / "train2017")
    labels = PseudoLabels(
        np.stack([person.keypoints for person in persons]),
        np.linspace(0.1, 1, 17, dtype=np.float32)[None].repeat(len(persons), 0),
    )
    nothing = np.zeros((17, 2), np.float32)
    return [unlabelled_person(person, nothing) for person in persons], labels


def _samples(dotted, size="full", full=False, seed=0, **augmentation):
    persons, labels = dotted
    drawn = Augmentation(**augmentation) if augmentation else None
    dataset = PoseDataset(
        persons, COCO_JOINTS, size=(192, 192), augmentation=drawn, seed=seed, labelled_fraction=0
    )
    return AdaptationSamples(dataset, labels, COCO_JOINTS, Resolutions.parse(size), full=full)


@pytest.mark.parametrize("size", ["full", "96"])
def test_keypoints_follow_the_image_through_every_augmentation(dotted, joint_colors, size):
    samples = _samples(dotted, size, scale=0.1, rotation=60, rotation_probability=1, flip=0.5)
    flipped = np.array(COCO_JOINTS.flip_permutation)
    mirrored = []
    for view in range(8):
        sample = samples[view % len(samples), view]
        image = sample["image"].permute(1, 2, 0).numpy().astype(float)
        errors = []
        for order in (np.arange(17), flipped):
            error = []
            for point, color, weight in zip(
                sample["keypoints"], joint_colors[order], sample["weights"], strict=True
            ):
                x, y = (round(float(value)) for value in point)
                if weight > 0 and 2 <= x < 190 and 2 <= y < 190:
                    pixel = image[y, x]
                    # a hue, whatever the brightness
                    error.append(np.abs(pixel / pixel.max() - color / color.max()).max())
            errors.append(np.median(error))
        # the dot of the other side where the crop is mirrored
        mirrored.append(errors[1] < errors[0])
        assert min(errors) < 0.25
    assert set(mirrored) == {True, False}


def test_weights_are_the_teachers_and_change_sides_with_the_joints(dotted):
    plain = _samples(dotted)[0, 0]["weights"].numpy()
    assert np.allclose(plain, np.linspace(0.1, 1, 17))
    mirrored = _samples(dotted, flip=1.0, scale=0.0, rotation_probability=0.0)[0, 0]["weights"].numpy()
    assert np.allclose(mirrored, plain[list(COCO_JOINTS.flip_permutation)])


def test_joints_outside_of_the_crop_count_for_nothing(dotted):
    persons, labels = dotted
    moved = replace(labels, keypoints=labels.keypoints.copy())
    moved.keypoints[:, 3] = [-500, 10]
    weights = _samples((persons, moved))[0, 0]["weights"]
    assert weights[3] == 0 and (weights > 0).sum() == 16


def test_resolutions_are_mixed_and_the_full_crop_stays_beside_them(dotted):
    samples = _samples(dotted, "24", full=True)
    kinds = set()
    for view in range(30):
        sample = samples[0, view]
        same = torch.equal(sample["image"], sample["full"])
        kinds.add(same)
        assert same or sample["image"].float().std() < sample["full"].float().std()
    assert kinds == {True, False}


def test_a_view_depends_on_seed_person_and_view_alone(dotted):
    options = {"scale": 0.2, "rotation": 40, "flip": 0.5}
    first, second = (_samples(dotted, "24-96", seed=3, **options) for _ in range(2))
    second[2, 5]
    for name, value in first[1, 7].items():
        assert torch.equal(value, second[1, 7][name]), name
    assert not torch.equal(first[1, 7]["image"], _samples(dotted, "24-96", seed=4, **options)[1, 7]["image"])
    assert not torch.equal(first[1, 7]["image"], first[1, 8]["image"])


def test_labels_of_other_people_are_refused(dotted):
    persons, labels = dotted
    with pytest.raises(InputError, match=r"labels: expected shape \(6, 17, 2\), got \(5, 17, 2\)"):
        _samples((persons, PseudoLabels(labels.keypoints[:5], labels.confidence[:5])))


def test_everybody_comes_once_before_anybody_comes_again():
    order = SteadyBatches(range(10), 4, 3, seed=1)
    keys = []
    for epoch in range(5):
        order.epoch = epoch
        assert len(list(order)) == len(order) == 3
        keys += [key for batch in order for key in batch]
    assert len(keys) == 60
    for round_ in range(6):
        part = keys[10 * round_ : 10 * round_ + 10]
        assert sorted(index for index, _ in part) == list(range(10))
        assert {view for _, view in part} == {round_}
    assert [index for index, _ in keys[:10]] != [index for index, _ in keys[10:20]]


def test_batches_go_on_where_they_were_left():
    order = SteadyBatches([5, 6, 7], 2, 4, seed=0)
    order.epoch = 2
    whole = list(order)
    order.first = 3
    assert list(order) == whole[3:]
