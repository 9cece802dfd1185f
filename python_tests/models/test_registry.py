"""Models by name, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import InputError
from cdkd_ext.models import create_model, list_models


def test_names_are_sorted_and_known() -> None:
    names = list_models()
    assert names == sorted(names)
    assert {"hrnet_w32", "hrnet_w48"} <= set(names)


@pytest.mark.parametrize("stem_stride", [None, 4, 2, 1])
@pytest.mark.parametrize("name", [name for name in list_models() if name.endswith("_small")])
def test_small_models_run_on_rectangles_and_learn(name: str, stem_stride: int | None) -> None:
    torch.manual_seed(0)
    model = create_model(name, input_size=(64, 32), num_joints=5, split_ratio=1.5, stem_stride=stem_stride)
    output = model(torch.randn(2, 3, 64, 32))
    stride = stem_stride or (2 if name.startswith("lowres") else 4)
    assert output.feature.shape == (2, 5, 64 // stride, 32 // stride)
    assert output.logits_x.shape == (2, 5, 48)
    assert output.logits_y.shape == (2, 5, 96)
    assert (model.input_size, model.num_joints, model.split_ratio) == ((64, 32), 5, 1.5)
    assert (model.name, model.head, model.feature_size) == (name, "simcc", (64 // stride, 32 // stride))
    (output.logits_x.square().mean() + output.logits_y.square().mean()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_bins_are_truncated() -> None:
    model = create_model("hrnet_w8_small", input_size=(32, 64), num_joints=2, split_ratio=1.03)
    output = model.eval()(torch.zeros(1, 3, 32, 64))
    assert output.logits_x.shape[-1] == 65
    assert output.logits_y.shape[-1] == 32


@pytest.mark.parametrize(
    "head", ["simcc", "heatmap", "cal", "rle", "tokenpose_b", "tokenpose_l", "distilpose", "prtr", "pct"]
)
def test_empty_batch(head: str) -> None:
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=2, head=head).eval()
    with torch.no_grad():
        output = model(torch.zeros(0, 3, 32, 32))
    keypoints, scores = codec_for(model.spec).decode(output)
    assert keypoints.shape == (0, 2, 2) and scores.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "hrnet_w33"}, "name: expected one of 'hourglass_4', .*'hrnet_w16_small'"),
        (
            {"input_size": (48, 64)},
            r"input_size: expected height and width .* multiples of 32 .* got \(48, 64\)",
        ),
        ({"input_size": (0, 32)}, r"input_size: .* positive multiples of 32"),
        ({"input_size": 64}, r"input_size: expected two integers \(height, width\), got 64"),
        ({"input_size": (64.0, 64)}, "input_size: expected two integers"),
        ({"num_joints": 0}, "num_joints: expected a positive integer, got 0"),
        ({"num_joints": True}, "num_joints: expected a positive integer, got True"),
        ({"split_ratio": 0.0}, "split_ratio: expected a positive number"),
        ({"split_ratio": -1}, "split_ratio: expected a positive number"),
        ({"split_ratio": float("nan")}, "split_ratio: expected a positive number"),
        (
            {"split_ratio": 0.05},
            r"split_ratio: expected at least two bins on each axis of a \(32, 32\) input",
        ),
        ({"head": "regression"}, "head: expected one of 'simcc', 'heatmap', .*, got 'regression'"),
        (
            {"name": "resnet50_upsample_free", "head": "heatmap"},
            "head: expected 'simcc', 'rle' or 'pct' for resnet50_upsample_free, got 'heatmap'",
        ),
        (
            {"name": "resnet50", "input_size": (64, 48)},
            r"input_size: expected .* multiples of 32 for resnet50",
        ),
        ({"channels_per_joint": 0}, "channels_per_joint: expected a positive integer, got 0"),
        ({"head": "heatmap", "channels_per_joint": 2}, "channels_per_joint: expected 1 for a heatmap head"),
        ({"decoding": "taylor"}, "decoding: expected one of 'quarter', 'dark', got 'taylor'"),
        ({"foo": 1}, "options: expected one of 'name', 'input_size', .*'joints', got 'foo'"),
        ({"input_size": None}, "input_size: expected what a name does not say, got nothing"),
        ({"color_order": "grey"}, "color_order: expected one of 'rgb', 'bgr', got 'grey'"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"name": "hrnet_w8_small", "input_size": (32, 32), "num_joints": 4} | change
    if change.get("input_size", 0) is None:
        del arguments["input_size"]
    with pytest.raises(InputError, match=message):
        create_model(arguments.pop("name"), **arguments)


def test_split_ratio_of_another_type() -> None:
    with pytest.raises(TypeError, match="split_ratio: expected a number, got str"):
        create_model("hrnet_w8_small", input_size=(32, 32), num_joints=4, split_ratio="3")  # type: ignore[arg-type]
