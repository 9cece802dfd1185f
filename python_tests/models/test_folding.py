"""The frozen copy computes what the network computes, in fewer steps, whatever its layers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cdkd_ext.errors import InputError
from cdkd_ext.models import ModelSpec, PoseNetwork, create_model, inference_copy
from cdkd_ext.models.resnet import ResNet, ResNetLayout

FUSED = "mkldnn._convolution_pointwise"


def trained_like(network):
    """Weights and statistics with the spread of trained ones: nothing is 0 or 1, no map vanishes."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            fan_in = (
                module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.weight[:, 0].numel()
            )
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            if module.affine:
                nn.init.uniform_(module.weight, 0.3, 0.7, generator=generator)
                nn.init.normal_(module.bias, std=0.2, generator=generator)
            if module.running_mean is not None:
                nn.init.normal_(module.running_mean, std=0.3, generator=generator)
                nn.init.uniform_(module.running_var, 0.3, 2.0, generator=generator)
    return network.eval()


def images(network, batch=2):
    return torch.randn(batch, 3, *network.input_size, generator=torch.Generator().manual_seed(1))


class _Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function._schema.name).replace("::", ".")] += 1
        return function(*args, **(kwargs or {}))


def calls(network) -> Counter[str]:
    with _Calls() as mode, torch.no_grad():
        network(images(network))
    return mode.counts


def norms(network) -> int:
    counts = calls(network)
    return sum(count for name, count in counts.items() if "batch_norm" in name)


def relative_error(value, expected) -> float:
    return ((value.double() - expected.double()).norm() / expected.double().norm()).item()


def assert_same_function(network, tolerance=2e-6):
    x = images(network)
    with torch.no_grad():
        expected = network.double()(x.double())
        network.float()
        for value, wanted in zip(inference_copy(network)(x), expected, strict=True):
            assert value.dtype == torch.float32 and value.shape == wanted.shape
            assert relative_error(value, wanted) < tolerance


def hrnet(**options):
    return create_model("hrnet_w8_small", input_size=(64, 96), num_joints=5, **options)


def resnet():
    layout = ResNetLayout(blocks=(1, 1, 1, 2), width=8, upsampling=(16, 16))
    return ResNet(layout, ModelSpec(name="resnet", input_size=(64, 96), num_joints=5, head="heatmap"))


NETWORKS = {
    "hrnet": hrnet,
    "hrnet of heatmaps": lambda: hrnet(head="heatmap"),
    "hrnet of bgr": lambda: hrnet(color_order="bgr"),
    "resnet": resnet,
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return trained_like(NETWORKS[request.param]())


def test_the_copy_agrees_with_the_network_and_has_no_batch_norm_left(network):
    assert norms(network) > 10
    assert_same_function(network)
    assert norms(inference_copy(network)) == 0


def test_relus_and_shortcuts_are_part_of_the_convolutions():
    network = trained_like(create_model("hrnet_w8_small", input_size=(32, 32), num_joints=5))
    before, after = calls(network), calls(inference_copy(network))
    # every block has one sum, and a ReLU behind every convolution
    blocks = [m for m in network.modules() if type(m).__name__ in ("BasicBlock", "Bottleneck")]
    assert before["aten.add"] - after["aten.add"] >= len(blocks)
    assert after[FUSED] >= sum(2 if type(m).__name__ == "BasicBlock" else 3 for m in blocks)


def test_the_network_itself_is_not_changed(network):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inference_copy(network)(images(network))
    assert network.training and "features" not in vars(network)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_network_in_training_mode_is_copied_in_evaluation_mode():
    network = trained_like(create_model("hrnet_w8_small", input_size=(32, 32), num_joints=5))
    x = images(network)
    with torch.no_grad():
        expected = network(x)
    for value, wanted in zip(inference_copy(network.train())(x), expected, strict=True):
        assert relative_error(value, wanted) < 2e-6


def test_the_result_is_no_part_of_a_graph_and_any_batch_size_fits(network):
    copy = inference_copy(network)
    for batch in (1, 3):
        x = images(network, batch).requires_grad_()
        assert not copy(x)[0].requires_grad
        assert len(copy(x)[0]) == batch


def test_bfloat16_is_close_on_statistics_like_trained_ones(network):
    x = images(network, 4)
    with torch.no_grad():
        expected = network(x)
    errors = [
        relative_error(value, wanted)
        for value, wanted in zip(inference_copy(network, torch.bfloat16)(x), expected, strict=True)
    ]
    assert max(errors) < 0.03
    assert min(errors) > 1e-4  # it was not float32 in disguise
    assert all(value.dtype == torch.float32 for value in inference_copy(network, torch.bfloat16)(x))


class Layers(PoseNetwork):
    """A pose network of arbitrary layers from 3 to 8 channels."""

    def __init__(self, layers, function=None):
        spec = ModelSpec(name="layers", input_size=(8, 8), num_joints=2)
        super().__init__(spec, feature_stride=1, size_multiple=8)
        self.layers = layers
        self.function = function
        self.add_head(8)

    def features(self, x):
        return self.layers(x) if self.function is None else self.function(self.layers, x)


def conv(inputs=3, outputs=8, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


SEQUENCES = {
    "with a bias": ([conv(), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "without affine": ([conv(bias=False), nn.BatchNorm2d(8, affine=False)], 0),
    "of another epsilon": ([conv(), nn.BatchNorm2d(8, eps=0.5)], 0),
    "behind an identity": ([conv(), nn.Identity(), nn.BatchNorm2d(8), nn.Identity(), nn.ReLU(True)], 0),
    "twice": ([conv(), nn.BatchNorm2d(8), nn.BatchNorm2d(8)], 0),
    "grouped": ([conv(), nn.ReLU(), conv(8, 8, groups=4), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "depthwise": ([conv(), nn.ReLU(), conv(8, 8, groups=8), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "dilated": ([nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "reflecting": ([conv(padding_mode="reflect"), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "padded by name": ([nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "transposed": ([nn.ConvTranspose2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "transposed in groups": (
        [conv(3, 6), nn.ReLU(), nn.ConvTranspose2d(6, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)],
        0,
    ),
    "in front": ([nn.BatchNorm2d(3), conv()], 1),
    "behind a ReLU": ([conv(), nn.ReLU(), nn.BatchNorm2d(8)], 1),
    "without statistics": ([conv(), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()], 1),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_batch_norms_are_folded_where_a_convolution_is_right_in_front(name):
    layers, left = SEQUENCES[name]
    network = trained_like(Layers(nn.Sequential(*layers)))
    assert_same_function(network)
    assert norms(inference_copy(network)) == left


def used_twice(layers, x):
    x = layers[0](x)
    return layers[1](x) + x


def called_twice(layers, x):
    """One convolution and one batch norm, in two places: each place gets weights of its own."""
    x = torch.cat([x, x, x[:, :2]], 1)
    return layers[1](layers[0](layers[1](layers[0](x))))


def shared_convolution(layers, x):
    x = torch.cat([x, x, x[:, :2]], 1)
    return layers[1](layers[0](x)) + layers[0](x)


def late_in_place_relu(layers, x):
    """The in-place ReLU changes what the sum reads, after the convolution was computed."""
    x = layers[0](x)
    y = layers[1](x)
    layers[2](x)
    return layers[3](y + x)


def broadcast_sum(layers, x):
    x = layers[0](x)
    mean = x.mean((2, 3), keepdim=True)
    return layers[2](layers[1](x) + mean)


def sum_with_a_number(layers, x):
    return layers[1](layers[0](x) + 1.5)


def sum_with_itself(layers, x):
    x = layers[0](x)
    return layers[1](x + x)


def scaled_sum(layers, x):
    x = layers[0](x)
    return layers[2](torch.add(layers[1](x), x, alpha=3))


def other_first(layers, x):
    x = layers[0](x)
    return layers[2](x + layers[1](x))


def depends_on_the_images(layers, x):
    x = layers[1](layers[0](x))
    return x if x.sum() > 0 else -x


FUNCTIONS = {
    used_twice: ([conv(), nn.BatchNorm2d(8)], 1),
    called_twice: ([conv(8), nn.BatchNorm2d(8)], 0),
    shared_convolution: ([conv(8), nn.BatchNorm2d(8)], 0),
    late_in_place_relu: ([conv(), conv(8), nn.ReLU(True), nn.ReLU()], 0),
    broadcast_sum: ([conv(), conv(8), nn.ReLU()], 0),
    sum_with_a_number: ([conv(), nn.ReLU()], 0),
    sum_with_itself: ([conv(), nn.ReLU()], 0),
    scaled_sum: ([conv(), conv(8), nn.ReLU()], 0),
    other_first: ([conv(), conv(8), nn.ReLU()], 0),
    depends_on_the_images: ([conv(), nn.BatchNorm2d(8)], 1),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_has_another_form_is_left_alone(function):
    layers, left = FUNCTIONS[function]
    network = trained_like(Layers(nn.ModuleList(layers), function))
    assert_same_function(network)
    assert norms(inference_copy(network)) == left


def test_a_sum_is_fused_in_either_order():
    layers = [conv(), conv(8), nn.ReLU()]
    assert calls(inference_copy(Layers(nn.ModuleList(layers), other_first)))[FUSED] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_onednn_only_the_batch_norms_are_folded(monkeypatch, dtype):
    network = trained_like(hrnet())
    expected = inference_copy(network, dtype)(images(network))
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    plain = inference_copy(network, dtype)
    assert calls(plain)[FUSED] == 0 and norms(plain) == 0
    tolerance = 2e-6 if dtype == torch.float32 else 0.03
    for value, wanted in zip(plain(images(network)), expected, strict=True):
        assert relative_error(value, wanted) < tolerance


def test_wrong_arguments_are_named():
    network = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=5)
    with pytest.raises(InputError, match=r"dtype: expected one of torch\.float32, torch\.bfloat16"):
        inference_copy(network, torch.float64)
    with pytest.raises(TypeError, match="network: expected a PoseNetwork, got Linear"):
        inference_copy(nn.Linear(2, 2))
