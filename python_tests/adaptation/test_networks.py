"""Networks that can be adapted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdkd_ext.adaptation import AdaptableModule, load_adaptable
from cdkd_ext.adaptation.networks import AdaptableGraph, AdaptablePoseNetwork, load_teacher
from cdkd_ext.checkpoints import save_model
from cdkd_ext.errors import InputError
from cdkd_ext.inference import predict_crops
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.teachers import ForeignTeacher, TeacherOptions
from python_tests.adaptation.conftest import DESCRIPTION, SIZE, SmallNetwork

CROPS = torch.randint(
    0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
OPTIONS = TeacherOptions()


def _ours(head):
    torch.manual_seed(0)
    return create_model(
        "hrnet_w8_small", input_size=(SIZE, SIZE), num_joints=16, joints=MPII_JOINTS, head=head
    )


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_a_network_of_this_package_is_read_as_it_reads_itself(head):
    network = _ours(head).eval()
    with torch.no_grad():
        # this reader takes heatmaps below 0 for noise
        network.final_layer.bias += 20
    adaptable = AdaptablePoseNetwork(network)
    teacher = ForeignTeacher(adaptable, MPII_JOINTS, TeacherOptions())
    assert torch.allclose(teacher.predict(CROPS).keypoints, predict_crops(network, CROPS)[0], atol=1e-3)
    flip = ForeignTeacher(adaptable, MPII_JOINTS, TeacherOptions(flip=True)).predict(CROPS).keypoints
    wanted = predict_crops(network, CROPS, flip_permutation=torch.tensor(MPII_JOINTS.flip_permutation))[0]
    if head == "simcc":
        # probabilities are averaged, not logits: most joints agree
        assert (flip - wanted).abs().median() < 1
    assert all(parameter.requires_grad for parameter in adaptable.learning().values())


def test_a_checkpoint_is_read_and_written(tmp_path):
    save_model(_ours("simcc"), tmp_path / "ours.safetensors")
    network = load_adaptable(str(tmp_path / "ours.safetensors"), OPTIONS)
    assert network.joints.names == MPII_JOINTS.names and network.input_size == (SIZE, SIZE)
    unchanged = network.as_saved()
    with torch.no_grad():
        network.learning()["final_layer.bias"] += 1
    network.save(tmp_path / "new.safetensors", CROPS, {})
    again = network.as_saved(tmp_path / "new.safetensors")
    for one, other, same in ((network, again, True), (network, unchanged, False)):
        assert torch.allclose(one(CROPS)["x"], other(CROPS)["x"], atol=1e-4) == same


def test_a_file_is_read_with_its_description(pose_file):
    network = load_adaptable(str(pose_file), OPTIONS)
    assert isinstance(network, AdaptableGraph)
    assert network.description.values == "logits"
    network.check(CROPS)
    file = ForeignTeacher(network.as_saved(), MPII_JOINTS, OPTIONS).predict(CROPS)
    module = ForeignTeacher(network, MPII_JOINTS, OPTIONS).predict(CROPS)
    assert torch.allclose(file.confidence, module.confidence, atol=1e-4)
    # noise saturates some of the sigmoids, and of equal cells any may be the highest
    clear = file.confidence < 0.999
    assert torch.allclose(file.keypoints[clear], module.keypoints[clear], atol=1e-3)


def test_a_module_learns_in_place(tmp_path):
    module = SmallNetwork(channels=4)
    network = AdaptableModule(module, DESCRIPTION)
    unchanged = network.as_saved()
    with torch.no_grad():
        module.maps.bias += 1
    network.save(tmp_path / "new.pth", CROPS, {})
    saved = network.as_saved(tmp_path / "new.pth")
    assert torch.equal(saved(CROPS)["heatmap"], network(CROPS)["heatmap"])
    assert not torch.equal(unchanged(CROPS)["heatmap"], network(CROPS)["heatmap"])


def test_networks_stay_in_evaluation_mode():
    network = AdaptableModule(
        torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 16, 4, 4)), DESCRIPTION
    )
    network.train()
    assert not network.training and not network.network[0].training


def test_a_fingerprint_is_that_of_the_weights_and_the_description():
    torch.manual_seed(0)
    module = SmallNetwork(channels=4)
    network = AdaptableModule(module, DESCRIPTION)
    first = network.fingerprint()
    assert first == AdaptableModule(module, DESCRIPTION).fingerprint()
    with torch.no_grad():
        module.maps.bias[0] += 1e-4
    assert first != network.fingerprint()


def test_teachers_are_told_apart(pose_file, tmp_path):
    save_model(_ours("simcc"), tmp_path / "ours.safetensors")
    teachers = [
        load_teacher(str(path), joints, TeacherOptions(flip=flip))
        for path in (pose_file, tmp_path / "ours.safetensors")
        for joints, flip in ((MPII_JOINTS, False), (MPII_JOINTS, True), (COCO_JOINTS, False))
    ]
    assert len({identity for _, identity in teachers}) == 6
    assert teachers[2][0].teacher_spec.num_joints == 17


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file: network.onnx\nkind: heatmap\njoints: coco\noutputs: {heatmap: heatmap}\n",
            "joints: expected",
        ),
        ("file: network.onnx\nkind: simcc\n", "outputs: expected the names of x, y"),
        ("file: network.onnx\nkind: heatmap\noutputs: {heatmap: maps}\n", "outputs.heatmap: expected one of"),
        ("file: gone.onnx\nkind: heatmap\n", "gone.onnx: expected an ONNX file, got no such file"),
    ],
)
def test_a_wrong_description_is_one_line(pose_file, text, message):
    pose_file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_adaptable(str(pose_file), OPTIONS)
    assert "\n" not in str(caught.value)


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(InputError, match="model: expected an ONNX file"):
        load_adaptable(str(tmp_path / "gone"), OPTIONS)
    (tmp_path / "broken.onnx").write_bytes(np.random.default_rng(0).bytes(99))
    with pytest.raises(InputError, match=r"broken\.onnx"):
        load_adaptable(str(tmp_path / "broken.onnx"), OPTIONS)
