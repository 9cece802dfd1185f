"""Networks for small crops, and the stem's stride of every network."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.codecs import HeatmapOutput
from cdkd_ext.errors import InputError
from cdkd_ext.models import create_model, list_models
from cdkd_ext.models.lowres import Exchange
from cdkd_ext.models.profile import profile_models
from cdkd_ext.models.registry import describe_models

NAMES = ["hrnet_w8_small", "hrnet_w32", "lowres_base", "resnet50", "resnet50_upsample_free"]


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_has_the_same_tensors_behind_every_stem(name: str) -> None:
    shapes = []
    for stride in (4, 2, 1):
        with torch.device("meta"):
            network = create_model(name, input_size=(64, 32), num_joints=3, stem_stride=stride)
        state = network.state_dict()
        shapes.append({key: value.shape for key, value in state.items() if not key.startswith("mlp_head")})
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", ["hrnet_w8_small", "lowres_small", "resnet50"])
@pytest.mark.parametrize("stride", [4, 2, 1])
def test_heatmaps_have_the_resolution_of_the_stem(name: str, stride: int) -> None:
    network = create_model(name, input_size=(32, 64), num_joints=2, head="heatmap", stem_stride=stride).eval()
    with torch.no_grad():
        output = network(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))
    assert isinstance(output, HeatmapOutput)
    assert output.heatmaps.shape == (1, 2, 32 // stride, 64 // stride)
    assert network.feature_size == (32 // stride, 64 // stride)


def test_the_upsample_free_resnet_keeps_its_cells_behind_a_smaller_stem() -> None:
    network = create_model("resnet50_upsample_free", input_size=(32, 32), num_joints=2, stem_stride=1).eval()
    assert network.feature_size == (4, 4)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).feature.shape == (1, 2, 4, 4)


def test_the_stem_alone_tells_two_networks_apart() -> None:
    def misfit(name: str, *strides: int | None) -> str | None:
        first, second = (
            create_model(name, input_size=(32, 32), num_joints=2, stem_stride=stride).spec
            for stride in strides
        )
        return first.misfit(second)

    assert misfit("hrnet_w8_small", 4, 2) == "stem_stride"
    assert misfit("hrnet_w8_small", None, 4) is None
    assert misfit("lowres_small", None, 2) is None


@pytest.mark.parametrize("stride", [3, 0, "2", 8])
def test_no_such_stem(stride: object) -> None:
    with pytest.raises(InputError, match="stem_stride: expected one of 4, 2, 1, None"):
        create_model("lowres_small", input_size=(32, 32), num_joints=2, stem_stride=stride)


@pytest.mark.parametrize(
    ("name", "stride", "multiple"), [("hrnet_w8_small", 2, 16), ("lowres_base", 2, 8), ("lowres_base", 1, 4)]
)
def test_sizes_are_multiples_of_the_coarsest_cell(name: str, stride: int, multiple: int) -> None:
    size = (3 * multiple, 2 * multiple)
    assert create_model(name, input_size=size, num_joints=2, stem_stride=stride).input_size == size
    with pytest.raises(InputError, match=f"positive multiples of {multiple} for {name}"):
        create_model(name, input_size=(multiple + multiple // 2, multiple), num_joints=2, stem_stride=stride)


def test_every_branch_hears_of_every_other_within_two_exchanges() -> None:
    torch.manual_seed(0)
    exchanges = [Exchange((4, 6, 8), 1, top_only=False), Exchange((4, 6, 8), 1, top_only=False)]
    inputs = [torch.randn(1, 4 + 2 * i, 16 // 2**i, 16 // 2**i, requires_grad=True) for i in range(3)]
    maps = inputs
    for exchange in exchanges:
        maps = exchange.eval()(maps)
    assert [tuple(x.shape) for x in maps] == [tuple(x.shape) for x in inputs]
    for result in maps:
        gradients = torch.autograd.grad(result.sum(), inputs, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_the_family_costs_what_the_documentation_says() -> None:
    names = [name for name in list_models() if name.startswith("lowres")]
    specs = describe_models(names, input_size=(32, 32), num_joints=14, split_ratio=2.0)
    macs = {profile.name: profile.macs for profile in profile_models(specs)}
    assert macs["lowres_small"] < macs["lowres_base"] < 60e6 < macs["lowres_large"]
