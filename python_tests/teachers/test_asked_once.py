"""Keypoints that are asked for once are the teacher's output for every view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdkd_ext.data import Augmentation, Person, PoseDataset
from cdkd_ext.data.mirrored_views import MirroredViews
from cdkd_ext.errors import InputError
from cdkd_ext.images import save_image
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers import AskedOnce, ForeignTeacher, TaughtSamples, TeacherDescription, TeacherOptions

JOINTS = JointSet(("nose", "left_hip", "right_hip"), (0, 2, 1))
SIDE, BINS = 32, (64, 64)


@pytest.fixture
def people(tmp_path):
    """Three people whose joints are the brightest pixels of a colour each, in an image of 90x120."""
    persons = []
    generator = np.random.default_rng(0)
    for number in range(3):
        image = np.zeros((90, 120, 3), np.uint8)
        keypoints = generator.uniform((35, 25), (85, 65), (3, 2)).astype(np.float32)
        rows, columns = np.mgrid[:90, :120]
        for joint, (x, y) in enumerate(keypoints):
            near = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
            image[..., joint] = np.round(255 * near)
        path = tmp_path / f"{number}.png"
        save_image(image, path)
        box = np.array([20, 10, 80, 70], np.float32)
        persons.append(Person(path, number, number, box, keypoints, np.ones(3, np.float32), 5600.0, 10.0))
    return persons


def asked(people, folder, **options):
    def network(images):
        """The dots' middles, and a score for each."""
        bright = images.double()
        places = torch.arange(64, dtype=torch.double)
        total = bright.sum((2, 3)).clamp(min=1)
        points = [(bright.sum(dim) * places).sum(-1) / total for dim in (2, 3)]
        scores = torch.tensor([0.9, 0.8, 0.7], dtype=torch.double).expand(len(images), 3)
        return torch.stack([*points, scores], -1).float()

    description = TeacherDescription(
        kind="keypoints", cells="corner", input_size=(64, 64), joints=JOINTS.names
    )
    teacher = ForeignTeacher.of(network, description, JOINTS, TeacherOptions(ask="people", **options))
    once = AskedOnce(teacher, (SIDE, SIDE), BINS)
    once.ask("dots", people, folder)
    return once


def dataset(people):
    augmentation = Augmentation(scale=0.2, rotation=40, flip=0.5)
    return PoseDataset(people, JOINTS, size=(SIDE, SIDE), augmentation=augmentation)


def views_of(people, count=8):
    return torch.utils.data.default_collate(
        [dataset(people)[i, v] for i in range(len(people)) for v in range(count)]
    )


def test_the_distributions_lie_around_the_joints_of_every_view(people, tmp_path):
    batch = views_of(people)
    assert {float(np.sign(np.linalg.det(m[:, :2]))) for m in batch["to_image"].numpy()} == {-1.0, 1.0}
    output = asked(people, tmp_path, targets="keypoints").output(batch["index"], batch["to_image"])
    keypoints = batch["keypoints"]
    inside = ((keypoints > 2) & (keypoints < SIDE - 3)).all(-1)
    assert inside.float().mean() > 0.8
    for axis, logits in enumerate((output.logits_x, output.logits_y)):
        middle = (logits.exp() * torch.arange(64) / 2).sum(-1)
        torch.testing.assert_close(middle[inside], keypoints[..., axis][inside], atol=0.3, rtol=0)
        spread = (logits.exp() * (torch.arange(64) / 2 - middle[..., None]) ** 2).sum(-1).sqrt()
        torch.testing.assert_close(spread[inside], torch.full_like(spread[inside], 0.5), atol=0.01, rtol=0)
    assert output.feature is None


def test_mirrored_views_swap_sides(people, tmp_path):
    """The scores follow their joints: of mirrored views the left hip has the right one's."""
    batch = views_of(people)
    confidence = asked(people, tmp_path).output(batch["index"], batch["to_image"]).confidence
    mirrored = torch.linalg.det(batch["to_image"][:, :, :2]) < 0
    known = confidence > 0
    for rows, scores in ((~mirrored, (0.9, 0.8, 0.7)), (mirrored, (0.9, 0.7, 0.8))):
        expected = torch.tensor(scores).expand(len(confidence), 3)
        torch.testing.assert_close(confidence[rows][known[rows]], expected[rows][known[rows]])


def test_stored_views_that_are_mirrored_as_they_are_read(people, tmp_path):
    batch = views_of(people, 2)
    mask = torch.tensor([True, False] * 3)
    changed = MirroredViews(2, JOINTS.flip_permutation).samples(batch, mask)
    teacher = asked(people, tmp_path, targets="keypoints")
    one, other = (teacher.output(views["index"], views["to_image"]) for views in (batch, changed))
    last = torch.arange(64) / 2
    order = list(JOINTS.flip_permutation)
    middle = (one.logits_x.exp() * last).sum(-1)
    mirrored = (other.logits_x.exp() * last).sum(-1)
    torch.testing.assert_close(mirrored[mask][:, order], 31 - middle[mask], atol=0.02, rtol=0)
    torch.testing.assert_close(other.confidence[mask][:, order], one.confidence[mask])
    torch.testing.assert_close(mirrored[~mask], middle[~mask])


def test_what_lies_outside_of_a_view_or_is_unsure_counts_nothing(people, tmp_path):
    to_image = torch.tensor([[[1.0, 0.0, 1000.0], [0.0, 1.0, 0.0]]])
    output = asked(people, tmp_path).output(torch.tensor([0]), to_image)
    assert not output.confidence.any() and output.logits_x.isfinite().all()
    batch = views_of(people, 1)
    unsure = asked(people, tmp_path, min_confidence=0.75).output(batch["index"], batch["to_image"]).confidence
    assert (unsure > 0).sum() < (
        asked(people, tmp_path).output(batch["index"], batch["to_image"]).confidence > 0
    ).sum()


def test_samples_are_taught_on_the_device(people, tmp_path):
    teacher = asked(people, tmp_path)
    samples = TaughtSamples(dataset(people), teacher)
    assert len(samples) == 3 and torch.equal(samples[1, 2]["image"], dataset(people)[1, 2]["image"])
    batch = views_of(people, 1)
    alone = samples.on_device(batch)["teacher_output"]
    expected = teacher.output(batch["index"], batch["to_image"])
    torch.testing.assert_close(alone.logits_x, expected.logits_x)
    # another student's crops are twice as large, with as many times as many classes
    other = teacher.for_student((2 * SIDE, 2 * SIDE), (2 * BINS[0], 2 * BINS[1]))
    to_image = batch["to_image"].clone()
    to_image[:, :, :2] /= 2
    larger = {**batch, "to_image": to_image}
    first, second = TaughtSamples(dataset(people), teacher, other).on_device({"students": [batch, larger]})[
        "students"
    ]
    torch.testing.assert_close(first["teacher_output"].logits_x, expected.logits_x)
    assert second["teacher_output"].logits_x.shape[-1] == 2 * BINS[0]
    torch.testing.assert_close(second["teacher_output"].confidence, expected.confidence)
    best = second["teacher_output"].logits_x.argmax(-1) / 2 - expected.logits_x.argmax(-1)
    assert best[expected.confidence > 0].abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_samples_are_taught_the_same(people, tmp_path):
    teacher, batch = asked(people, tmp_path), views_of(people, 4)
    expected = teacher.output(batch["index"], batch["to_image"])
    on_gpu = {name: value.cuda() for name, value in batch.items()}
    given = TaughtSamples(dataset(people), teacher).on_device(on_gpu)["teacher_output"]
    for name in ("logits_x", "logits_y", "confidence"):
        assert getattr(given, name).is_cuda
        torch.testing.assert_close(getattr(given, name).cpu(), getattr(expected, name), atol=1e-3, rtol=1e-4)


def test_crops_without_people_and_people_who_were_not_asked_about(people, tmp_path):
    teacher = asked(people, tmp_path)
    with pytest.raises(
        InputError, match=r"teacher_options.ask: expected views, got people, for crops without"
    ):
        teacher(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))
    fresh = AskedOnce(teacher.network, (SIDE, SIDE), BINS)
    with pytest.raises(
        InputError, match="index: expected people who were asked about, got people before `ask`"
    ):
        fresh.output(torch.tensor([0]), torch.eye(2, 3)[None])
