"""Fixed views in shards: what comes back, and which runs share them."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.data import Augmentation, PoseDataset, load_coco_persons
from cdkd_ext.data.cached_views import FixedViews
from cdkd_ext.data.sharded_views import ShardedViews, build_sharded_views, views_manifest
from cdkd_ext.data.shards import Manifest
from cdkd_ext.errors import InputError

KEYS = [(4, 1), (0, 0), (2, 1)]


@pytest.fixture
def people(drawn_people):
    return load_coco_persons(drawn_people / "val/annotations.json", drawn_people / "val/images")


def dataset(people, **options):
    persons, joints = people
    return PoseDataset(
        persons[:5], joints, **{"size": (32, 32), "teacher_size": (64, 64), "seed": 3, **options}
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_raw_views_are_the_data_set_s_samples(people, tmp_path, monkeypatch, workers):
    monkeypatch.setattr("cdkd_ext.data.shards._FEWEST_ROWS", 4)
    samples = dataset(people, augmentation=Augmentation())
    folder = build_sharded_views(samples, 2, tmp_path, workers=workers)
    assert len(list(folder.glob("*.npy"))) == 3
    views = FixedViews(ShardedViews(folder))
    assert len(views) == 5
    batch = views.batch(KEYS)
    assert set(batch) == {"image", "keypoints", "annotated", "labelled", "to_image", "index"}
    for name, value in batch.items():
        assert torch.equal(value, torch.stack([samples[key][name] for key in KEYS])), name


def test_jpeg_views_differ_by_a_little(people, tmp_path):
    samples = dataset(people, size=(64, 64))
    raw, jpeg = (
        ShardedViews(build_sharded_views(samples, 2, tmp_path, images=images)).read(KEYS)
        for images in ("raw", "jpeg")
    )
    difference = (raw["image"].float() - jpeg["image"].float()).abs().mean()
    assert jpeg["image"].shape == (3, 3, 64, 64) and jpeg["image"].dtype == torch.uint8
    assert 0 < difference < 4
    # the channels are where they were
    assert (raw["image"].flip(1).float() - jpeg["image"].float()).abs().mean() > 2 * difference
    assert torch.equal(raw["keypoints"], jpeg["keypoints"])
    with pytest.raises(InputError, match="images: expected one of 'raw', 'jpeg', got 'png'"):
        build_sharded_views(samples, 1, tmp_path, images="png")


def test_what_the_teacher_sees_does_not_depend_on_the_student_s_size(people):
    augmentation = Augmentation(half_body=0.5)
    small, large = (dataset(people, size=size, augmentation=augmentation) for size in ((32, 32), (64, 64)))
    for key in KEYS:
        assert torch.equal(small[key]["teacher_image"], large[key]["teacher_image"])
    assert views_manifest(small, 2, {}) == views_manifest(large, 2, {})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"padding": 1.5},
        {"size": (64, 48), "teacher_size": (128, 96)},
        {"augmentation": Augmentation(flip=0.1)},
        {"views": 3},
        {"people": 4},
        {"teacher": "another"},
    ],
)
def test_views_that_are_drawn_otherwise_are_other_views(people, change):
    def manifest(views=2, people_used=people, teacher="one", **options) -> Manifest:
        return views_manifest(dataset(people_used, **options), views, {"teacher": teacher})

    change = dict(change)
    if "people" in change:
        change["people_used"] = (people[0][: change.pop("people")], people[1])
    assert manifest().fingerprint == manifest().fingerprint
    assert manifest(**change).fingerprint != manifest().fingerprint


def test_labels_matter_to_half_body_crops_alone(people):
    def fingerprint(half_body, fraction):
        samples = dataset(people, augmentation=Augmentation(half_body=half_body), labelled_fraction=fraction)
        return views_manifest(samples, 1, {}).fingerprint

    assert fingerprint(0.0, 1.0) == fingerprint(0.0, 0.5)
    assert fingerprint(0.3, 1.0) != fingerprint(0.3, 0.5)


def test_labels_are_part_of_the_student_s_views(people, tmp_path):
    folders = {build_sharded_views(dataset(people, labelled_fraction=f), 1, tmp_path) for f in (1.0, 0.2)}
    assert len(folders) == 2
