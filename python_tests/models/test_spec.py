"""The one description of a network: what it holds, refuses, and turns into."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import ModelOptions, ModelSpec, create_model

SPEC = ModelSpec(
    name="hrnet_w8_small",
    input_size=(64, 32),
    num_joints=16,
    split_ratio=1.5,
    channels_per_joint=2,
    decoding="dark",
    color_order="bgr",
    padding=1.5,
    joints=MPII_JOINTS,
)


def test_a_description_survives_json() -> None:
    assert ModelSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC
    unknown = replace(SPEC, joints=None)
    assert ModelSpec.from_dict(json.loads(json.dumps(unknown.to_dict()))) == unknown


def test_a_description_from_before_there_was_a_choice_is_of_linear_crops() -> None:
    described = SPEC.to_dict()
    assert described.pop("resample") == "area"
    assert ModelSpec.from_dict(described) == replace(SPEC, resample="linear")
    with pytest.raises(InputError, match="resample: expected one of 'area', 'linear', got 'cubic'"):
        replace(SPEC, resample="cubic")  # type: ignore[arg-type]


def test_a_network_is_what_its_description_says() -> None:
    network = create_model(SPEC)
    assert network.spec is SPEC
    assert network.num_joints == 16 and network.feature_channels == 32
    bins = network.mlp_head_x.out_features, network.mlp_head_y.out_features
    assert bins == SPEC.num_bins == (48, 96)
    named = create_model("hrnet_w8_small", input_size=(64, 32), num_joints=16, padding=1.5)
    assert named.spec == ModelSpec(name="hrnet_w8_small", input_size=(64, 32), num_joints=16, padding=1.5)
    with pytest.raises(InputError, match="options: expected none beside a ModelSpec, got head"):
        create_model(SPEC, head="heatmap")


def test_options_become_a_description_with_the_joints_of_the_data() -> None:
    options = ModelOptions(name="hrnet_w32", input_size=(64, 64), split_ratio=2.0)
    spec = options.spec(COCO_JOINTS, 1.1)
    assert (spec.num_joints, spec.joints, spec.padding, spec.split_ratio) == (17, COCO_JOINTS, 1.1, 2.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "hrnet_w16_small"}, "name"),
        ({"input_size": (64, 64)}, "input_size"),
        ({"split_ratio": 2.0}, "split_ratio"),
        ({"channels_per_joint": 1}, "channels_per_joint"),
        ({"color_order": "rgb"}, "color_order"),
        ({"decoding": "quarter"}, None),
        ({"padding": 1.0}, None),
        ({}, None),
    ],
)
def test_weights_fit_or_the_option_is_named(change: dict[str, Any], expected: str | None) -> None:
    assert SPEC.misfit(replace(SPEC, **change)) == expected


def test_bins_are_no_matter_of_heatmaps() -> None:
    maps = ModelSpec(name="hrnet_w32", input_size=(64, 64), num_joints=17, head="heatmap")
    assert maps.misfit(replace(maps, split_ratio=2.0)) is None
    assert maps.misfit(replace(maps, head="simcc")) == "head"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": 0}, "padding: expected a positive number, got 0"),
        ({"padding": float("inf")}, "padding: expected a positive number"),
        ({"joints": COCO_JOINTS}, "joints: expected num_joints = 16, got 17 joints"),
        ({"head": "regression"}, "head: expected one of 'simcc', 'heatmap'"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SPEC, **change)


def test_fields_of_a_file_are_named_with_the_file() -> None:
    described = SPEC.to_dict()
    with pytest.raises(InputError, match=r"a\.json: model\.stride: expected one of .*, got an unknown field"):
        ModelSpec.from_dict(described | {"stride": 4}, "a.json: model")
    del described["num_joints"]
    with pytest.raises(InputError, match=r"a\.json: model\.num_joints: expected the description"):
        ModelSpec.from_dict(described, "a.json: model")
