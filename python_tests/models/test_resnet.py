"""The published ResNet graph: tensor names, shapes, and what the layers compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cdkd_ext.errors import InputError
from cdkd_ext.models import HeatmapOutput, ModelSpec, create_model
from cdkd_ext.models.resnet import ResNet, ResNetLayout

Shapes = dict[str, tuple[int, ...]]
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def norm(name: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{vector}": (channels,) for vector in vectors} | {f"{name}.num_batches_tracked": ()}


def backbone_shapes(blocks: tuple[int, ...]) -> Shapes:
    """Names and shapes of torchvision's ResNet without its classifier, written down from its naming rules."""
    shapes = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    channels = 64
    for layer, count in enumerate(blocks, start=1):
        inner = 32 * 2**layer
        for i in range(count):
            name = f"layer{layer}.{i}"
            shapes |= {f"{name}.conv1.weight": (inner, channels, 1, 1)} | norm(f"{name}.bn1", inner)
            shapes |= {f"{name}.conv2.weight": (inner, inner, 3, 3)} | norm(f"{name}.bn2", inner)
            shapes |= {f"{name}.conv3.weight": (4 * inner, inner, 1, 1)} | norm(f"{name}.bn3", 4 * inner)
            if i == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * inner, channels, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", 4 * inner)
            channels = 4 * inner
    return shapes


def deconvolution_shapes() -> Shapes:
    shapes: Shapes = {}
    for conv, bn, channels in ((0, 1, 2048), (3, 4, 256), (6, 7, 256)):
        shapes |= {f"deconv_layers.{conv}.weight": (channels, 256, 4, 4)} | norm(f"deconv_layers.{bn}", 256)
    return shapes


def linear_shapes(cells: int, bins: tuple[int, int]) -> Shapes:
    shapes: Shapes = {}
    for axis, count in zip("xy", bins, strict=True):
        shapes |= {f"mlp_head_{axis}.weight": (count, cells), f"mlp_head_{axis}.bias": (count,)}
    return shapes


def actual_shapes(model: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", list(BLOCKS))
@pytest.mark.parametrize("head", ["heatmap", "simcc"])
def test_published_names_and_shapes(name: str, head: str) -> None:
    with torch.device("meta"):
        model = create_model(name, input_size=(256, 192), num_joints=17, head=head, split_ratio=2)
    expected = backbone_shapes(BLOCKS[name]) | deconvolution_shapes()
    expected |= {"final_layer.weight": (17, 256, 1, 1), "final_layer.bias": (17,)}
    if head == "simcc":
        expected |= linear_shapes(64 * 48, (384, 512))
    assert actual_shapes(model) == expected
    assert model.feature_size == (64, 48)


@pytest.mark.parametrize("name", list(BLOCKS))
def test_published_names_and_shapes_without_upsampling(name: str) -> None:
    with torch.device("meta"):
        model = create_model(
            f"{name}_upsample_free",
            input_size=(256, 192),
            num_joints=17,
            split_ratio=2,
            channels_per_joint=28,
        )
    expected = backbone_shapes(BLOCKS[name])
    expected |= {"final_layer.weight": (17 * 28, 2048, 1, 1), "final_layer.bias": (17 * 28,)}
    # the release's HEAD_INPUT for this input
    expected |= linear_shapes(1344, (384, 512))
    assert actual_shapes(model) == expected
    assert (model.feature_size, model.feature_channels) == ((8, 6), 476)


def tiny(head: str, upsampling: tuple[int, ...] = (6, 5, 4), channels_per_joint: int = 1) -> ResNet:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="tiny",
        input_size=(64, 32),
        num_joints=3,
        head=head,
        split_ratio=2.0,
        channels_per_joint=channels_per_joint,
    )
    model = ResNet(ResNetLayout((1, 2, 1, 1), 4, upsampling), spec).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif buffer_name.endswith("running_mean"):
            buffer.normal_(std=0.3)
    return model


def by_formula(model: ResNet, x: torch.Tensor) -> torch.Tensor:
    """The backbone and the transposed convolutions, layer by layer from the weights alone."""
    weights = model.state_dict()

    def normed(x: torch.Tensor, bn: str) -> torch.Tensor:
        mean, var, scale, shift = (
            weights[f"{bn}.{name}"][:, None, None]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(x: torch.Tensor, name: str, bn: str, **options: int) -> torch.Tensor:
        return normed(F.conv2d(x, weights[f"{name}.weight"], **options), bn)

    x = F.max_pool2d(conv(x, "conv1", "bn1", stride=2, padding=3).relu(), 3, 2, 1)
    for layer, count in enumerate((1, 2, 1, 1), start=1):
        for i in range(count):
            name = f"layer{layer}.{i}"
            stride = 2 if layer > 1 and i == 0 else 1
            out = conv(x, f"{name}.conv1", f"{name}.bn1").relu()
            out = conv(out, f"{name}.conv2", f"{name}.bn2", stride=stride, padding=1).relu()
            out = conv(out, f"{name}.conv3", f"{name}.bn3")
            if i == 0:
                x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            x = (out + x).relu()
    for at in range(0, 3 * (len(model.deconv_layers) // 3), 3):
        x = F.conv_transpose2d(x, weights[f"deconv_layers.{at}.weight"], stride=2, padding=1)
        x = normed(x, f"deconv_layers.{at + 1}").relu()
    return F.conv2d(x, weights["final_layer.weight"], weights["final_layer.bias"])


def test_heatmaps_by_formula() -> None:
    model = tiny("heatmap")
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    output = model(images)
    assert isinstance(output, HeatmapOutput)
    assert output.heatmaps.shape == (2, 3, 16, 8)
    torch.testing.assert_close(output.heatmaps, by_formula(model, images))


def test_several_channels_per_joint_by_formula() -> None:
    """Channel j·t + c is the c-th map of joint j, and a joint's classes see its own maps alone."""
    model = tiny("simcc", (), channels_per_joint=4)
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    output = model(images)
    maps = by_formula(model, images)
    torch.testing.assert_close(output.feature, maps)
    weights = model.state_dict()
    for joint in range(3):
        cells = torch.cat([maps[:, 4 * joint + c].reshape(2, 2) for c in range(4)], 1)
        for axis, logits in (("x", output.logits_x), ("y", output.logits_y)):
            weight, bias = weights[f"mlp_head_{axis}.weight"], weights[f"mlp_head_{axis}.bias"]
            torch.testing.assert_close(logits[:, joint], cells @ weight.T + bias)
    assert output.logits_x.shape == (2, 3, 64) and output.logits_y.shape == (2, 3, 128)


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_fresh_weights_learn(head: str) -> None:
    torch.manual_seed(0)
    spec = ModelSpec(name="tiny", input_size=(64, 64), num_joints=3, head=head)
    model = ResNet(ResNetLayout((1, 1, 1, 1), 4, (6, 6, 6)), spec)
    output = model(torch.randn(4, 3, 64, 64))
    sum(part.square().mean() for part in output[1:] or output).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_what_fits_a_map_of_low_resolution_is_listed() -> None:
    expected = "head: expected 'simcc', 'rle' or 'pct' for resnet50_upsample_free, got 'heatmap'"
    with pytest.raises(InputError, match=expected):
        create_model("resnet50_upsample_free", input_size=(64, 64), num_joints=3, head="heatmap")
    for head in ("simcc", "rle", "pct"):
        with torch.device("meta"):
            create_model("resnet50_upsample_free", input_size=(64, 64), num_joints=3, head=head)
