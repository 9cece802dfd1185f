"""Published sizes and costs, to the printed digit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cdkd_ext.models import (
    ModelSpec,
    count_macs,
    count_parameters,
    create_model,
    describe_models,
    format_profiles,
    list_models,
    paper_gflops,
    profile_models,
)


@pytest.mark.parametrize(
    ("name", "size", "split_ratio", "millions", "convolution_gibi"),
    [
        ("hrnet_w32", 64, 3, "28.635", "0.593"),
        ("hrnet_w32", 32, 2, "28.544", "0.148"),
        ("hrnet_w48", 64, 3, "63.694", "1.218"),
        ("hrnet_w32", 256, 3, "34.829", "9.493"),
    ],
)
def test_published_numbers(
    name: str, size: int, split_ratio: float, millions: str, convolution_gibi: str
) -> None:
    with torch.device("meta"):
        model = create_model(name, input_size=(size, size), num_joints=17, split_ratio=split_ratio)
    assert f"{count_parameters(model) / 1e6:.3f}" == millions
    convolutions = count_macs(model, linear=False)
    assert f"{convolutions / 2**30:.3f}" == convolution_gibi
    cells = (size // 4) ** 2
    assert count_macs(model) - convolutions == 2 * 17 * cells * int(size * split_ratio)


@pytest.mark.parametrize(
    ("name", "size", "head", "split_ratio", "joints", "printed_millions", "printed_gflops"),
    [
        ("resnet152", 32, "heatmap", 3, 16, "68.6", "0.328"),
        ("resnet50", 32, "heatmap", 3, 16, "34.0", "0.187"),
        ("hrnet_w32", 32, "heatmap", 3, 16, "28.5", "0.148"),
        ("hrnet_w32", 32, "simcc", 2, 16, "28.5", "0.148"),
        ("resnet152", 64, "heatmap", 3, 16, "68.6", "1.314"),
        ("hrnet_w32", 64, "heatmap", 3, 16, "28.5", "0.593"),
        ("hrnet_w32", 64, "simcc", 3, 16, "28.6", "0.593"),
        ("hrnet_w48", 64, "simcc", 3, 17, "63.7", "1.218"),
    ],
)
def test_the_papers_tables_to_the_printed_digit(
    name: str, size: int, head: str, split_ratio: int, joints: int, printed_millions: str, printed_gflops: str
) -> None:
    """Tables I and II of the CDKD paper: parameters and "GFLOPs" of the networks that exist here."""
    options = {"num_joints": joints, "head": head, "split_ratio": split_ratio}
    (profile,) = profile_models(describe_models([name], input_size=(size, size), **options))
    assert f"{profile.parameters / 1e6:.1f}" == printed_millions
    assert f"{profile.paper_gflops:.3f}" == printed_gflops


@pytest.mark.parametrize(
    ("name", "millions"),
    [("hrnet_w32", "28.536"), ("hrnet_w48", "63.596"), ("resnet50", "34.00"), ("resnet152", "68.64")],
)
def test_parameters_of_heatmap_networks(name: str, millions: str) -> None:
    with torch.device("meta"):
        model = create_model(name, input_size=(64, 64), num_joints=17, head="heatmap")
    digits = len(millions.split(".")[1])
    assert f"{count_parameters(model) / 1e6:.{digits}f}" == millions


def test_the_teachers_cost() -> None:
    (profile,) = profile_models([ModelSpec(name="hrnet_w32", input_size=(256, 256), num_joints=16)])
    assert f"{profile.paper_gflops:.2f}" == "9.49"


def test_the_two_conventions_differ_where_they_should() -> None:
    """Honest MACs and the papers' count of transposed convolutions and SimCC's linear layers, by hand."""
    with torch.device("meta"):
        model = create_model("resnet50", input_size=(64, 96), num_joints=16, split_ratio=2)
    # 2x3 cells of 2048 channels, then 4x6 and 8x12 of 256, each with 16 products per output channel
    transposed = 16 * 256 * (2 * 3 * 2048 + 4 * 6 * 256 + 8 * 12 * 256)
    linear_outputs, cells = 16 * (64 + 96) * 2, 16 * 24
    expected = count_macs(model) + 3 * transposed - linear_outputs * cells + linear_outputs * 16
    assert round(paper_gflops(model) * 2**30) == expected


def test_a_table_has_one_line_per_network_and_explains_its_units() -> None:
    names = ["hrnet_w8_small", "hrnet_w16_small"]
    profiles = profile_models(describe_models(names, input_size=(64, 32), num_joints=17))
    lines = format_profiles(profiles).splitlines()
    assert lines[1].split()[:2] == ["hrnet_w8_small", "64x32"]
    assert f"{profiles[0].parameters / 1e6:.3f} M" in lines[1]
    assert f"{profiles[0].macs / 1e9:.3f} G" in lines[1]
    assert "2^30" in lines[-1]


def test_layers_by_hand() -> None:
    class Layers(nn.Module):
        input_size = (6, 8)

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
            self.transposed = nn.ConvTranspose2d(8, 2, 4, stride=2, padding=1)
            self.linear = nn.Linear(8, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(self.transposed(self.grouped(self.conv(images))))

    convolutions = 3 * 4 * 4 * 3 * 9 + 3 * 4 * 8 * 2 * 9 + 3 * 4 * 8 * 2 * 16
    model = Layers()
    assert count_macs(model, linear=False) == convolutions  # type: ignore[arg-type]
    assert count_macs(model) == convolutions + 2 * 6 * 8 * 5  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "head"), [("lowres_small", "tokenpose_b"), ("hrnet_w8_small", "rle")])
def test_without_weights_the_same_is_counted(name: str, head: str) -> None:
    spec = ModelSpec(name=name, input_size=(64, 32), num_joints=3, head=head)  # type: ignore[arg-type]
    (profile,) = profile_models([spec])
    model = create_model(spec)
    assert (profile.parameters, profile.macs) == (count_parameters(model), count_macs(model))
    with FlopCounterMode(display=False) as counted, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.eval()(torch.zeros(1, 3, 64, 32))
    assert profile.macs == counted.get_total_flops() // 2 > 1e6


def test_counting_leaves_the_model_as_it_was() -> None:
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=4)
    model.bn1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model)
    assert model.training
    assert not model.bn1.training
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_every_network_that_has_the_head_is_described_with_the_options_that_it_has() -> None:
    options = {"input_size": (64, 64), "num_joints": 17, "channels_per_joint": 32}
    channels = {spec.name: spec.channels_per_joint for spec in describe_models(**options)}
    own = [name for name in list_models() if name.startswith(("hourglass", "okdhp"))]
    assert list(channels) == [name for name in list_models() if name not in own]
    assert {name for name, count in channels.items() if count == 32} == {
        name for name in list_models() if name.endswith("_upsample_free")
    }
    with_maps = {spec.name for spec in describe_models(head="heatmap", **options)}
    assert with_maps == {name for name, count in channels.items() if count == 1} | {*own}
