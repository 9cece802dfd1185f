"""The published HRNet graph: tensor names, shapes, sizes, and what the layers compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cdkd_ext.blocks import Bottleneck
from cdkd_ext.models import HeatmapOutput, create_model
from cdkd_ext.models.hrnet import FusionModule, HRNet, HRNetLayout
from cdkd_ext.models.spec import ModelSpec

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{vector}": (channels,) for vector in vectors} | {f"{name}.num_batches_tracked": ()}


def conv_norm(conv: str, bn: str, out: int, channels: int, kernel: int) -> Shapes:
    return {f"{conv}.weight": (out, channels, kernel, kernel)} | norm(bn, out)


def published_shapes(width: int, num_joints: int, cells: int, bins: tuple[int, int]) -> Shapes:
    """Names and shapes of the published SimCC HRNet, written down from the release's naming rules."""
    shapes = conv_norm("conv1", "bn1", 64, 3, 3) | conv_norm("conv2", "bn2", 64, 64, 3)
    for i in range(4):
        block = f"layer1.{i}"
        shapes |= conv_norm(f"{block}.conv1", f"{block}.bn1", 64, 64 if i == 0 else 256, 1)
        shapes |= conv_norm(f"{block}.conv2", f"{block}.bn2", 64, 64, 3)
        shapes |= conv_norm(f"{block}.conv3", f"{block}.bn3", 256, 64, 1)
    shapes |= conv_norm("layer1.0.downsample.0", "layer1.0.downsample.1", 256, 64, 1)
    shapes |= conv_norm("transition1.0.0", "transition1.0.1", width, 256, 3)
    shapes |= conv_norm("transition1.1.0.0", "transition1.1.0.1", 2 * width, 256, 3)
    shapes |= conv_norm("transition2.2.0.0", "transition2.2.0.1", 4 * width, 2 * width, 3)
    shapes |= conv_norm("transition3.3.0.0", "transition3.3.0.1", 8 * width, 4 * width, 3)
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for m in range(modules):
            module = f"stage{stage}.{m}"
            for b in range(stage):
                channels = width * 2**b
                for n in range(4):
                    block = f"{module}.branches.{b}.{n}"
                    for c in (1, 2):
                        shapes |= conv_norm(f"{block}.conv{c}", f"{block}.bn{c}", channels, channels, 3)
            targets = 1 if (stage, m) == (4, 2) else stage
            for i in range(targets):
                for j in range(stage):
                    layer = f"{module}.fuse_layers.{i}.{j}"
                    if j > i:
                        shapes |= conv_norm(f"{layer}.0", f"{layer}.1", width * 2**i, width * 2**j, 1)
                    for k in range(i - j):
                        out = width * 2**i if k == i - j - 1 else width * 2**j
                        shapes |= conv_norm(f"{layer}.{k}.0", f"{layer}.{k}.1", out, width * 2**j, 3)
    shapes |= {"final_layer.weight": (num_joints, width, 1, 1), "final_layer.bias": (num_joints,)}
    for axis, count in zip("xy", bins, strict=True):
        shapes |= {f"mlp_head_{axis}.weight": (count, cells), f"mlp_head_{axis}.bias": (count,)}
    return shapes


@pytest.mark.parametrize(("name", "width"), [("hrnet_w32", 32), ("hrnet_w48", 48)])
def test_published_names_and_shapes(name: str, width: int) -> None:
    with torch.device("meta"):
        model = create_model(name, input_size=(64, 96), num_joints=17, split_ratio=3)
    expected = published_shapes(width, 17, 16 * 24, (288, 192))
    actual = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert actual == expected
    assert len(actual) == 1758


@pytest.mark.parametrize(("name", "width"), [("hrnet_w32", 32), ("hrnet_w48", 48)])
def test_published_heatmap_networks_end_at_the_final_layer(name: str, width: int) -> None:
    with torch.device("meta"):
        model = create_model(name, input_size=(256, 192), num_joints=16, head="heatmap")
        output = model(torch.zeros(1, 3, 256, 192))
    expected = published_shapes(width, 16, 1, (1, 1))
    for axis in "xy":
        del expected[f"mlp_head_{axis}.weight"], expected[f"mlp_head_{axis}.bias"]
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    assert isinstance(output, HeatmapOutput)
    assert output.heatmaps.shape == (1, 16, 64, 48)


def test_every_convolution_of_w32_has_the_published_stride_and_padding() -> None:
    """Names and shapes do not tell strides: the stem, the new branches and the ways down halve, nothing else."""
    with torch.device("meta"):
        model = create_model("hrnet_w32", input_size=(64, 64), num_joints=17)
    halving = {"conv1", "conv2", "transition1.1.0.0", "transition2.2.0.0", "transition3.3.0.0"}
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for m in range(modules):
            for i in range(1 if (stage, m) == (4, 2) else stage):
                for j in range(i):
                    halving |= {f"stage{stage}.{m}.fuse_layers.{i}.{j}.{k}.0" for k in range(i - j)}
    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, torch.nn.Conv2d)}
    assert {name for name, layer in layers.items() if layer.stride == (2, 2)} == halving
    assert {layer.stride for name, layer in layers.items() if name not in halving} == {(1, 1)}
    for name, layer in layers.items():
        assert layer.padding == ((1, 1) if layer.kernel_size == (3, 3) else (0, 0)), name
        assert layer.dilation == (1, 1) and layer.groups == 1, name


def test_the_ways_down_have_a_relu_before_the_last_step_only() -> None:
    with torch.device("meta"):
        model = create_model("hrnet_w32", input_size=(64, 64), num_joints=17)
    for i in range(4):
        for j in range(i):
            steps = list(model.get_submodule(f"stage4.0.fuse_layers.{i}.{j}").children())
            kinds = [[type(layer).__name__ for layer in step.children()] for step in steps]
            assert kinds == [["Conv2d", "BatchNorm2d", "ReLU"]] * (i - j - 1) + [["Conv2d", "BatchNorm2d"]]


def test_only_the_top_branch_leaves_the_network() -> None:
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16)
    last = model.get_submodule("stage4.0.fuse_layers")
    assert len(list(last.children())) == 1


def test_normalisation_momentum() -> None:
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16)
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def folded(x: torch.Tensor, module: torch.nn.Module, conv: str, bn: str, **options: int) -> torch.Tensor:
    """Convolution and normalisation by their formulas, with running statistics."""
    weights = module.state_dict()
    x = F.conv2d(x, weights[f"{conv}.weight"], **options)
    mean, var, scale, shift = (
        weights[f"{bn}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def randomise_norms(module: torch.nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_()


@pytest.mark.parametrize("in_channels", [8, 16])
def test_bottleneck(in_channels: int) -> None:
    torch.manual_seed(0)
    block = Bottleneck(in_channels, 4).double().eval()
    randomise_norms(block)
    x = torch.randn(2, in_channels, 5, 6, dtype=torch.float64)
    out = folded(x, block, "conv1", "bn1").relu()
    out = folded(out, block, "conv2", "bn2", padding=1).relu()
    out = folded(out, block, "conv3", "bn3")
    shortcut = x if in_channels == 16 else folded(x, block, "downsample.0", "downsample.1")
    torch.testing.assert_close(block(x), (out + shortcut).relu())


def test_fusion_adds_all_branches_at_each_resolution() -> None:
    torch.manual_seed(0)
    module = FusionModule([2, 4, 8], blocks=1, top_only=False).double().eval()
    randomise_norms(module)
    inputs = [torch.randn(2, 2 * 2**b, 8 // 2**b, 8 // 2**b, dtype=torch.float64) for b in range(3)]

    def fuse(x: torch.Tensor, name: str, **options: int) -> torch.Tensor:
        return folded(x, module, f"fuse_layers.{name}.0", f"fuse_layers.{name}.1", **options)

    def enlarge(x: torch.Tensor, factor: int) -> torch.Tensor:
        return x.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    down = {"stride": 2, "padding": 1}
    a, b, c = (branch(x) for branch, x in zip(module.branches, [x.clone() for x in inputs], strict=True))
    expected = [
        a + enlarge(fuse(b, "0.1"), 2) + enlarge(fuse(c, "0.2"), 4),
        fuse(a, "1.0.0", **down) + b + enlarge(fuse(c, "1.2"), 2),
        fuse(fuse(a, "2.0.0", **down).relu(), "2.0.1", **down) + fuse(b, "2.1.0", **down) + c,
    ]
    for actual, wanted in zip(module(inputs), expected, strict=True):
        torch.testing.assert_close(actual, wanted.relu())


def test_each_new_branch_grows_out_of_the_lowest_resolution() -> None:
    spec = ModelSpec(name="tiny", input_size=(32, 64), num_joints=3)
    model = HRNet(HRNetLayout(2, (1, 1, 1), 1, 2, 1), spec).eval()
    shapes = {}
    for stage in (2, 3, 4):
        module = model.get_submodule(f"stage{stage}.0")
        module.register_forward_hook(
            lambda _, inputs, __, stage=stage: shapes.update({stage: [tuple(x.shape[1:]) for x in inputs[0]]})
        )
    model(torch.randn(1, 3, 32, 64))
    full = [(2, 8, 16), (4, 4, 8), (8, 2, 4), (16, 1, 2)]
    assert shapes == {2: full[:2], 3: full[:3], 4: full}
