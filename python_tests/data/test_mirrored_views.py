"""Stored views and their mirror images: crops, labels and maps agree with each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cdkd_ext.data import Augmentation, PoseDataset, load_coco_persons
from cdkd_ext.data.batches import EpochBatches
from cdkd_ext.data.cached_views import FixedViews, build_student_views
from cdkd_ext.data.mirrored_views import MirroredViews
from cdkd_ext.data.shared_samples import SharedBatches

VIEWS = 2


@pytest.fixture(scope="module")
def dataset(drawn_people: Path) -> PoseDataset:
    persons, joints = load_coco_persons(
        drawn_people / "train/annotations.json", drawn_people / "train/images"
    )
    return PoseDataset(
        persons[:5], joints, size=(64, 48), augmentation=Augmentation(), seed=3, labelled_fraction=0.6
    )


@pytest.fixture(scope="module")
def stored(dataset: PoseDataset, tmp_path_factory: pytest.TempPathFactory) -> FixedViews:
    return FixedViews(build_student_views(dataset, VIEWS, tmp_path_factory.mktemp("views")))


def test_a_mirrored_view_is_the_flipped_crop_with_its_labels(dataset, stored):
    order = list(dataset.joints.flip_permutation)
    views = stored.with_mirrored(MirroredViews(VIEWS, order))
    keys = [(index, view) for index in range(5) for view in range(VIEWS)]
    own = stored.batch(keys)
    mirror = views.on_device(views.batch([(index, view + VIEWS) for index, view in keys]))
    assert mirror.keys() == own.keys()
    assert torch.equal(mirror["image"], own["image"].flip(-1))
    assert torch.equal(mirror["annotated"], own["annotated"][:, order])
    for name in ("labelled", "index"):
        assert torch.equal(mirror[name], own[name])
    shown = mirror["annotated"] > 0
    assert shown.any() and not shown.all()
    assert torch.equal(mirror["keypoints"][~shown], torch.zeros_like(mirror["keypoints"][~shown]))
    expected = own["keypoints"][:, order]
    expected[..., 0] = 47 - expected[..., 0]
    assert torch.equal(mirror["keypoints"][shown], expected[shown])
    # what is at a place in the crop is at the same place in the image
    for key, other in zip(own["to_image"], mirror["to_image"], strict=True):
        point, mirrored = torch.tensor([10.0, 20.0, 1.0]), torch.tensor([37.0, 20.0, 1.0])
        torch.testing.assert_close(key @ point, other @ mirrored, rtol=0, atol=1e-3)


def test_stored_views_stay_as_they_are_beside_their_mirror_images(dataset, stored):
    views = stored.with_mirrored(MirroredViews(VIEWS, dataset.joints.flip_permutation))
    mixed = views.on_device(views.batch([(0, 0), (0, VIEWS), (3, 1), (3, VIEWS + 1)]))
    own = stored.batch([(0, 0), (3, 1)])
    for name, value in own.items():
        assert torch.equal(mixed[name][[0, 2]], value), name


def test_the_teacher_s_output_is_asked_for_the_stored_view_and_mirrored_on_the_device(dataset, stored):
    asked = []

    def outputs(keys):
        asked.append(list(keys))
        return torch.arange(len(keys)).float()

    def mirrored(output, mask):
        return torch.where(mask, -output, output)

    views = FixedViews(stored._views, outputs).with_mirrored(
        MirroredViews(VIEWS, dataset.joints.flip_permutation, mirrored)
    )
    batch = views.batch([(0, 1), (1, 3), (2, 2)])
    assert asked == [[(0, 1), (1, 1), (2, 0)]]
    assert batch["teacher_output"].tolist() == [0, 1, 2]
    assert views.on_device(batch)["teacher_output"].tolist() == [0, -1, -2]


def test_several_students_have_each_their_own_mirrored_output(dataset, stored):
    def source(sign, outputs=None):
        return FixedViews(stored._views, outputs).with_mirrored(
            MirroredViews(
                VIEWS,
                dataset.joints.flip_permutation,
                lambda output, mask: torch.where(mask, sign * output, output),
            )
        )

    shared = SharedBatches([source(2, lambda keys: torch.ones(len(keys))), source(3)])
    parts = shared.on_device(shared.batch([(0, 0), (1, VIEWS)]))["students"]
    assert [part["teacher_output"].tolist() for part in parts] == [[1, 2], [1, 3]]


def test_an_epoch_takes_each_half_the_time():
    order = EpochBatches(range(2000), 100, seed=0, views=2 * VIEWS)
    views = [view for batch in order for _, view in batch]
    assert set(views) == {0, 1, 2, 3}
    assert 0.45 < sum(view >= VIEWS for view in views) / len(views) < 0.55
