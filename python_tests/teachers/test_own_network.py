"""Networks of this package as teachers of students with other joints, matched by name as those of others are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cdkd_ext.checkpoints import save_model
from cdkd_ext.cli import main
from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, JointSet
from cdkd_ext.models import create_model
from cdkd_ext.teachers import ForeignTeacher, FrozenTeacher, TeacherFile, TeacherOptions

OTHERS = JointSet(("left_knee", "right_knee", "nose", "tail"), (1, 0, 2, 3))
CHOSEN = [COCO_JOINTS.names.index(name) for name in OTHERS.names[:3]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    """Writes a network of COCO's joints that looks at its image."""

    def write(head: str, **options: Any) -> str:
        torch.manual_seed(3)
        network = create_model(
            "hrnet_w8_small", input_size=(64, 64), num_joints=17, joints=COCO_JOINTS, head=head, **options
        )
        for name, value in network.named_parameters():
            if value.dim() > 1 and "layer" in name:
                torch.nn.init.orthogonal_(value, 3.0)
        path = tmp_path / f"{head}.safetensors"
        save_model(network, path)
        return str(path)

    return write


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_what_it_says_of_the_students_joints(checkpoint: Any, head: str) -> None:
    path = checkpoint(head)
    teacher = TeacherFile(path, options=TeacherOptions(flip=False, cut=-1)).load("cpu", OTHERS)
    assert isinstance(teacher, ForeignTeacher)
    assert [sources for sources in teacher.joint_map.sources] == [*((index,) for index in CHOSEN), ()]
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    network = TeacherFile(path).network().eval()
    with torch.no_grad():
        output = network(images)
        keypoints, _ = codec_for(network.spec).decode(output)
    said = teacher.predict(images)
    torch.testing.assert_close(said.keypoints[:, :3], keypoints[:, CHOSEN], atol=0.3, rtol=0)
    assert said.keypoints[:, 3].isnan().all() and (said.confidence[:, 3] == 0).all()
    taught, own = teacher(images), FrozenTeacher(network)(images)
    assert taught.logits_x is not None and own.logits_x is not None
    if head == "simcc":
        torch.testing.assert_close(
            taught.logits_x[:, :3].softmax(-1), own.logits_x[:, CHOSEN].softmax(-1), atol=1e-5, rtol=1e-4
        )
    # of what it does not know nothing is said
    assert taught.confidence is not None and (taught.confidence[:, 3] == 0).all()


def test_which_checkpoints_are_matched(checkpoint: Any) -> None:
    path = checkpoint("simcc")
    assert isinstance(TeacherFile(path).load("cpu", COCO_JOINTS), FrozenTeacher)
    assert isinstance(TeacherFile(path).load("cpu"), FrozenTeacher)
    people = TeacherFile(path, options=TeacherOptions(ask="people")).load("cpu", COCO_JOINTS)
    assert isinstance(people, ForeignTeacher) and people.joint_map.is_identity
    # with neither classes nor heatmaps
    assert isinstance(TeacherFile(checkpoint("rle")).load("cpu", OTHERS), FrozenTeacher)
    with pytest.raises(InputError, match=r"teacher_options\.height: expected nothing for a checkpoint"):
        TeacherFile(path, options=TeacherOptions(height=32)).load("cpu", COCO_JOINTS)
    with pytest.raises(InputError, match="joint"):
        TeacherFile(path).load("cpu", JointSet(("wing",), (0,)))


def test_stored_outputs_know_their_teacher(checkpoint: Any, tmp_path: Path) -> None:
    path = checkpoint("simcc")
    told = set()
    for joints, options in ((OTHERS, {}), (COCO_JOINTS, {}), (OTHERS, {"flip": True})):
        file = TeacherFile(path, options=TeacherOptions(**options))
        told.add(file.identity(file.load("cpu", joints)))
    assert len(told) == 3
    # the same network with other weights
    network = TeacherFile(path).network()
    with torch.no_grad():
        network.conv1.weight.add_(1)
    save_model(network, tmp_path / "other.safetensors")
    file = TeacherFile(str(tmp_path / "other.safetensors"))
    assert file.identity(file.load("cpu", OTHERS)) not in told


@pytest.mark.parametrize("way", [["--data.views=1"], ["--teacher_options.ask=people"], []])
def test_a_teacher_of_coco_teaches_people_with_other_joints(
    drawn_people: Path, checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: list[str]
) -> None:
    words = [
        "distill", f"--teacher={checkpoint('heatmap')}", f"--data.root={drawn_people}", "--data.workers=0", "--epochs=1",
        "--batch_size=16", "--model.name=lowres_small", "--model.input_size=[32, 32]", "--cpu=true",
        f"--output={tmp_path / 'run'}",
    ]  # fmt: skip
    assert main([*words, *way]) == 0
    printed = capsys.readouterr().out
    assert "joints of " in printed and "epoch 1/1" in printed
    loss = float(printed.split(" cca ")[1].split()[0])
    assert math.isfinite(loss) and loss > 0


def test_a_method_without_classes_or_heatmaps_has_to_have_the_same_joints(
    drawn_people: Path, checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "distill",
        f"--teacher={checkpoint('rle')}",
        f"--data.root={drawn_people}",
        f"--output={tmp_path / 'run'}",
    ]
    assert main([*words, "--cpu=true", "--data.workers=0"]) == 2
    assert "teacher: joints of " in capsys.readouterr().err
