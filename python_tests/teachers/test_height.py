"""A teacher that is shown what a student sees: people of few pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from cdkd_ext.checkpoints import save_model
from cdkd_ext.data import crop_from_afar
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.teachers import ForeignTeacher, TeacherDescription, TeacherFile, TeacherOptions

SIZE = (64, 48)
DESCRIPTION = TeacherDescription(
    kind="heatmap", input_size=SIZE, joints=("left_eye", "right_eye"), values="logits", range=(0, 255)
)


@pytest.fixture
def crops():
    generator = np.random.default_rng(0)
    return torch.from_numpy(generator.integers(0, 256, (2, 3, *SIZE), np.uint8))


def asked(crops, call="__call__", **options):
    """The crops that a network is given in the end, one tensor a call."""
    seen = []

    def network(images):
        seen.append(images)
        return images[:, :2, ::4, ::4]

    teacher = ForeignTeacher.of(network, DESCRIPTION, options=TeacherOptions(**options))
    seen.clear()
    getattr(teacher, call)(crops)
    return [images.round().to(torch.uint8) for images in seen]


@pytest.mark.parametrize("call", ["__call__", "predict"])
def test_crops_lose_the_pixels_that_a_person_far_away_does_not_have(crops, call):
    (seen,) = asked(crops, call, height=16)
    for crop, image in zip(crops, seen, strict=True):
        wanted = crop_from_afar(crop.permute(1, 2, 0).contiguous().numpy(), np.eye(2, 3), SIZE, 16)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), wanted)
    (untouched,) = asked(crops, call)
    assert torch.equal(untouched, crops)
    # noise of single pixels is what goes
    assert seen.float().std() < 0.4 * crops.float().std()


def test_no_crops_are_no_answers(crops):
    (seen,) = asked(crops[:0], height=16)
    assert seen.shape == (0, 3, *SIZE)


def test_the_mirror_image_is_that_of_what_is_seen(crops):
    seen, mirror = asked(crops, height=16, flip=True)
    assert torch.equal(mirror, seen.flip(-1))


@pytest.mark.parametrize(
    ("height", "message"),
    [
        (7, "teacher_options.height: expected at least 8 pixels, or nothing for full resolution, got 7"),
        (64, "teacher_options.height: expected less than the network's own 64 pixels, got 64"),
    ],
)
def test_other_heights_are_refused(crops, height, message):
    with pytest.raises(InputError, match=message):
        asked(crops, height=height)


def test_a_checkpoint_of_this_package_has_its_own_size(tmp_path):
    network = create_model("hrnet_w8_small", input_size=(64, 64), joints=MPII_JOINTS, num_joints=16)
    save_model(network, tmp_path / "teacher.safetensors")
    with pytest.raises(
        InputError, match=r"height: expected nothing for a checkpoint .* its own size, got 16"
    ):
        TeacherFile(str(tmp_path / "teacher.safetensors"), options=TeacherOptions(height=16)).load()


def test_stored_answers_are_told_apart_by_it(make_graph, tmp_path):
    make_graph()
    described = {"file": "dots.onnx", "kind": "heatmap", "joints": ["nose", "left_eye", "right_eye"]}
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(described))

    def identity(**options):
        file = TeacherFile(str(tmp_path / "teacher.yaml"), options=TeacherOptions(**options))
        return file.identity(file.load())

    assert identity(height=16) != identity(height=24)
    # answers stored before there was the option are found
    assert "height" not in identity()
