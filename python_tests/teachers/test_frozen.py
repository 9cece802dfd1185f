"""The frozen teacher: what it computes, and in which precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cdkd_ext.checkpoints import save_model
from cdkd_ext.data import DataConfig
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationConfig, ModelConfig, prepare_views


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = create_model(
        "hrnet_w8_small", input_size=(64, 64), num_joints=16, split_ratio=2.0, joints=MPII_JOINTS
    )
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    # statistics of its own maps
    network.train()(images(8))
    return network.eval()


def images(batch=4):
    return torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8)


def error(value, expected) -> float:
    return ((value - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-6), ("bfloat16", 0.03)])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_teacher_computes_what_its_model_does_under_mixed_precision_too(
    model, precision, tolerance, mixed
):
    given = images()
    with torch.no_grad():
        expected = model(given)
    teacher = FrozenTeacher(model, precision=precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        outputs = teacher(given)
    assert outputs.confidence is None
    for value, wanted in zip(outputs[:3], expected, strict=True):
        assert value.dtype == torch.float32
        assert not value.requires_grad and not value.is_inference()
        assert error(value, wanted) < tolerance


def test_its_outputs_can_be_saved_for_a_backward_pass(model):
    feature = FrozenTeacher(model)(images()).feature
    weight = torch.ones_like(feature, requires_grad=True)
    (weight * feature).sum().backward()
    assert torch.equal(weight.grad, feature)


@pytest.mark.parametrize(("native", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_processor_has_it(model, monkeypatch, native, chosen):
    monkeypatch.setattr("cdkd_ext.teachers.frozen.cpu_features", lambda: {"avx512_bf16": native})
    assert FrozenTeacher(model, precision="auto").precision == chosen
    assert FrozenTeacher(model, precision="float32").precision == "float32"
    monkeypatch.setattr("cdkd_ext.teachers.frozen.cpu_features", dict)
    assert FrozenTeacher(model, precision="auto").precision == "float32"


def test_an_unknown_precision_is_named(model):
    with pytest.raises(
        InputError, match="precision: expected one of 'auto', 'float32', 'bfloat16', 'float16', got 'fp8'"
    ):
        FrozenTeacher(model, precision="fp8")
    with pytest.raises(InputError, match="teacher_precision: expected one of"):
        DistillationConfig(teacher="x", teacher_precision="fp8").validate()


def test_outputs_stored_in_one_precision_are_not_reused_in_another(model, drawn_people, tmp_path):
    save_model(model, tmp_path / "teacher.safetensors")
    config = DistillationConfig(
        output=str(tmp_path / "run"),
        model=ModelConfig(name="hrnet_w8_small", input_size=(32, 32), split_ratio=2.0),
        teacher=str(tmp_path / "teacher.safetensors"),
        data=DataConfig(root=str(drawn_people), workers=0, views=1, cache=str(tmp_path / "cache")),
    )

    def stored():
        return len(list((tmp_path / "cache").glob("teacher-*")))

    for precision, folders in (("float32", 1), ("float32", 1), ("bfloat16", 2), ("float32", 2)):
        prepare_views(replace(config, teacher_precision=precision))
        assert stored() == folders


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_confidence_of_pct_is_a_probability(precision):
    torch.manual_seed(0)
    network = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=3, head="pct").eval()
    with torch.no_grad():
        network.cls_pred_layer.weight.mul_(10)
        network.cls_pred_layer.bias.add_(5)
    given = images(2)
    with torch.no_grad():
        output = network(given)
    assert output.token_scores.min() > 1
    expected = output.logits.softmax(-1).max(-1).values.mean(1)
    assert expected.min() > 0 and expected.max() < 0.9
    found = FrozenTeacher(network, precision=precision).predict(given).confidence
    torch.testing.assert_close(found, expected[:, None].expand(2, 3), atol=0.05, rtol=0)
