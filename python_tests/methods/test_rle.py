"""RLE: published sizes and names, the loss against plain loops, decoding, the flip test, and a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.checkpoints import export_checkpoint, load_checkpoint
from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import InputError
from cdkd_ext.inference import predict_crops
from cdkd_ext.methods.rle import RealNVP, Regression, RLECodec, RLELoss, RLEOutput
from cdkd_ext.models import count_parameters, create_model, paper_gflops
from cdkd_ext.training import DistillationTask


@pytest.mark.parametrize(
    ("name", "size", "parameters", "tensors"),
    [
        ("hrnet_w32", (32, 32), 28_728_668, 1829),
        ("hrnet_w32", (64, 64), 29_146_460, 1829),
        ("hrnet_w48", (64, 64), 64_484_348, 1829),
        ("resnet50_upsample_free", (256, 192), 23_701_148, 395),
    ],
)
def test_published_sizes(name: str, size: tuple[int, int], parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        network = create_model(name, input_size=size, num_joints=17, head="rle")
    assert count_parameters(network) == parameters
    assert len(network.state_dict()) == tensors
    if (name, size) == ("hrnet_w32", (64, 64)):
        assert f"{paper_gflops(network):.4f}" == "0.5932"


def small(**options: Any) -> Any:
    torch.manual_seed(3)
    options = {"input_size": (32, 64), "num_joints": 3, "head": "rle"} | options
    network = create_model("hrnet_w8_small", **options).eval()
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


def test_published_names_are_written_and_read(tmp_path: Path) -> None:
    network, other = small(), small()
    for value in other.parameters():
        value.data.zero_()
    export_checkpoint(network, tmp_path / "rle.pth")
    names = torch.load(tmp_path / "rle.pth").keys()
    assert {"preact.conv1.weight", "fc_coord.linear.weight", "fc_sigma.linear.bias", "flow.mask"} <= names
    assert {"flow.s.0.0.weight", "flow.t.5.4.bias", "preact.stage4.0.branches.3.0.bn1.running_var"} <= names
    report = load_checkpoint(other, tmp_path / "rle.pth")
    assert report.layout == "rle" and not report.missing and not report.dropped
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    assert all(map(torch.equal, network(images), other(images)))


def test_a_backbone_of_another_network_loads(tmp_path: Path) -> None:
    donor = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=5, head="heatmap")
    export_checkpoint(donor, tmp_path / "donor.pth")
    network = small()
    report = load_checkpoint(network, tmp_path / "donor.pth", backbone_only=True)
    assert torch.equal(
        network.stage3[0].branches[0][0].conv1.weight, donor.stage3[0].branches[0][0].conv1.weight
    )
    assert {name.split(".")[0] for name in report.missing} == {"fc_coord", "fc_sigma", "flow"}


def test_coordinates_do_not_grow_with_the_feature() -> None:
    """Only the bias stays when the feature is divided by its norm, for coordinates and not for sigmas."""
    network = small()
    feature = torch.rand(2, 8, 8, 16)
    once, ten = (network.spec.method.read(network, factor * feature) for factor in (1, 10))
    torch.testing.assert_close(ten.coordinates, once.coordinates)
    flat = feature.flatten(1)
    expected = (
        flat @ network.fc_coord.linear.weight.T / flat.norm(dim=1, keepdim=True)
        + network.fc_coord.linear.bias
    )
    torch.testing.assert_close(once.coordinates, expected.view(2, 3, 2))
    torch.testing.assert_close(once.sigma_logits, network.fc_sigma.linear(flat).view(2, 3, 2))
    assert network.spec.method.read(network, 0 * feature).coordinates.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_feature_of_norm_0_gives_the_bias(dtype: torch.dtype) -> None:
    layer = Regression(64, 2, normalized=True).to(dtype)
    assert torch.equal(layer(torch.zeros(1, 64, dtype=dtype)), layer.linear.bias[None])
    # float16 cannot hold the norm's square
    for value in (1e-3, 100.0):
        found = layer(torch.full((1, 64), value, dtype=dtype))
        expected = layer.linear.weight.float().sum(1) / 8 + layer.linear.bias.float()
        torch.testing.assert_close(found[0].float(), expected, atol=0.01, rtol=0.01)


def test_a_flip_test_needs_a_permutation() -> None:
    output = RLEOutput(torch.rand(1, 3, 2) - 0.5, torch.zeros(1, 3, 2))
    with pytest.raises(InputError, match=r"flipped\[1\]: expected a permutation of 0 to 2, got \[0, 0, 0\]"):
        RLECodec((64, 64)).decode(output, flipped=(output, torch.tensor([0, 0, 0])))


def test_the_flow_is_a_density() -> None:
    torch.manual_seed(0)
    flow = RealNVP().double()
    for value in flow.parameters():
        value.data.add_(0.05 * torch.randn_like(value))
    axis = torch.linspace(-16, 16, 257, dtype=torch.float64)
    with torch.no_grad():
        total = flow(torch.cartesian_prod(axis, axis)).exp().sum() / 8**2
    assert float(total) == pytest.approx(1, abs=1e-4)


def log_phi(flow: RealNVP, x: list[float]) -> float:
    """The flow's density by plain loops, from the last coupling to the first."""
    z, total = list(x), 0.0
    for layer in reversed(range(6)):
        mask = [0, 1] if layer % 2 == 0 else [1, 0]
        kept = [m * value for m, value in zip(mask, z, strict=True)]

        def run(net: Any, last: Callable[[float], float], given: list[float] = kept) -> list[float]:
            values = given
            for place in (0, 2, 4):
                weight, bias = net[place].weight.tolist(), net[place].bias.tolist()
                values = [
                    sum(w * v for w, v in zip(row, values, strict=True)) + b
                    for row, b in zip(weight, bias, strict=True)
                ]
                values = (
                    [v if v > 0 else 0.01 * v for v in values] if place < 4 else [last(v) for v in values]
                )
            return values

        scale, shift = run(flow.s[layer], math.tanh), run(flow.t[layer], lambda value: value)
        for axis in range(2):
            if mask[axis] == 0:
                z[axis] = (z[axis] - shift[axis]) * math.exp(-scale[axis])
                total -= scale[axis]
    return total - 0.5 * (z[0] ** 2 + z[1] ** 2) - math.log(2 * math.pi)


def test_the_loss_against_plain_loops() -> None:
    torch.manual_seed(1)
    flow = RealNVP().double()
    for value in flow.parameters():
        value.data.add_(0.2 * torch.randn_like(value))
    output = RLEOutput(torch.randn(2, 2, 2).double() * 0.3, torch.randn(2, 2, 2).double())
    keypoints = torch.tensor([[[3.0, 40.0], [70.0, -9.0]], [[10.0, 11.0], [math.nan, 5.0]]]).double()
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.0]]).double()
    expected = 0.0
    for b in range(2):
        for j in range(2):
            if weights[b, j] == 0:
                continue
            target = [float(keypoints[b, j, 0]) / 64 - 0.5, float(keypoints[b, j, 1]) / 32 - 0.5]
            sigma = [1 / (1 + math.exp(-v)) for v in output.sigma_logits[b, j].tolist()]
            residual = [m - g for m, g in zip(output.coordinates[b, j].tolist(), target, strict=True)]
            phi = log_phi(flow, [r / s for r, s in zip(residual, sigma, strict=True)])
            for r, s in zip(residual, sigma, strict=True):
                terms = (
                    math.log(s)
                    - phi
                    + math.log(s * math.sqrt(2 * math.pi))
                    + abs(r) / (math.sqrt(2) * s + 1e-9)
                )
                expected += float(weights[b, j]) * terms / 2
    assert RLELoss(RLECodec((32, 64)), flow)(output, keypoints, weights).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_decoding_and_targets_meet() -> None:
    codec = RLECodec((32, 64))
    keypoints = torch.tensor([[[0.0, 0.0], [63.0, 31.0], [-7.5, 40.0]]])
    targets, used = codec.targets(None, keypoints, torch.ones(1, 3))
    assert torch.equal(used, torch.ones(1, 3)) and torch.equal(targets[0, 0], torch.tensor([-0.5, -0.5]))
    logits = torch.tensor([[[0.0, 0.0], [9.0, 9.0], [-9.0, 0.0]]])
    points, scores = codec.decode(RLEOutput(targets, logits))
    torch.testing.assert_close(points, keypoints)
    sigma = logits.sigmoid()
    torch.testing.assert_close(scores, 1 - (sigma[..., 0] + sigma[..., 1]) / 2)


def test_the_flip_test_of_a_mirrored_network_changes_nothing() -> None:
    """What a network says of the mirror image that mirrors perfectly: x becomes W - 1 - x, left becomes right."""
    codec = RLECodec((32, 64))
    permutation = torch.tensor([1, 0, 2])
    output = RLEOutput(torch.rand(2, 3, 2) - 0.5, torch.randn(2, 3, 2))
    x, y = output.coordinates.unbind(-1)
    mirrored = RLEOutput(
        torch.stack([-x - 1 / 64, y], -1)[:, permutation], output.sigma_logits[:, permutation]
    )
    found, scores = codec.decode(output, flipped=(mirrored, permutation))
    expected, expected_scores = codec.decode(output)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores, expected_scores)


def test_the_flip_test_is_symmetric() -> None:
    network = small()
    permutation = torch.tensor([1, 0, 2])
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    points, scores = predict_crops(network, images, flip_permutation=permutation)
    other, other_scores = predict_crops(network, images.flip(-1), flip_permutation=permutation)
    back = torch.stack([63 - other[..., 0], other[..., 1]], -1)[:, permutation]
    torch.testing.assert_close(back, points, rtol=0, atol=1e-4)
    torch.testing.assert_close(other_scores[:, permutation], scores)


def test_the_flow_is_trained_once_and_lies_in_the_network_alone() -> None:
    task = DistillationTask(small())
    assert {name.split(".")[0] for name in task.state_dict()} == {"student"}
    losses = task.train()(
        torch.randint(0, 256, (4, 3, 32, 64), dtype=torch.uint8),
        None,
        torch.rand(4, 3, 2) * 31,
        torch.ones(4, 3),
    )
    assert losses.keys() == {"total", "rle"}
    losses["total"].backward()
    assert all(value.grad is not None for value in task.student.flow.parameters())


@pytest.mark.long
def test_a_training_beats_a_constant_prediction(trained: Callable[..., Any]) -> None:
    result = trained("rle", steps=110, people=16)
    assert result.last < result.first
    assert result.error < 0.9 * result.constant


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="depth: expected nothing for a rle head"):
        create_model("hrnet_w8_small", input_size=(32, 32), num_joints=3, head="rle", depth=2)
    student = small(input_size=(32, 32))
    teacher = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=3)
    with pytest.raises(InputError, match="teacher: expected a term that the student learns by"):
        DistillationTask(student, teacher)
    loss = RLELoss(RLECodec((64, 64)), student.flow)
    with pytest.raises(InputError, match=r"label_loss\.input_size: expected the student's"):
        DistillationTask(student, label_loss=loss)
    assert codec_for(student.spec) == RLECodec((32, 32))


def test_a_gpu_is_not_waited_for(no_host_reads: Callable[[], Any]) -> None:
    flow = RealNVP().to("meta")
    with no_host_reads(), torch.device("meta"):
        output = RLEOutput(torch.zeros(2, 3, 2), torch.zeros(2, 3, 2))
        loss = RLELoss(RLECodec((32, 32)), flow)(output, torch.zeros(2, 3, 2), torch.zeros(2, 3))
    assert loss.shape == ()


def test_weights_of_zero_do_not_reach_the_gradient() -> None:
    flow = RealNVP()
    coordinates: Tensor = torch.zeros(1, 2, 2, requires_grad=True)
    output = RLEOutput(coordinates, torch.zeros(1, 2, 2))
    keypoints = torch.tensor([[[3.0, 4.0], [math.nan, math.inf]]])
    RLELoss(RLECodec((32, 32)), flow)(output, keypoints, torch.tensor([[1.0, 0.0]])).backward()
    assert coordinates.grad is not None and coordinates.grad.isfinite().all()
    assert (coordinates.grad[0, 1] == 0).all()


def test_a_sigma_of_nothing_without_a_label_does_not_reach_the_gradient() -> None:
    logits = torch.tensor([[[0.3, -0.2], [-50.0, math.inf]]], requires_grad=True)
    coordinates = torch.tensor([[[0.1, 0.1], [math.nan, 0.2]]], requires_grad=True)
    loss = RLELoss(RLECodec((32, 32)), RealNVP())
    result = loss(RLEOutput(coordinates, logits), torch.full((1, 2, 2), 9.0), torch.tensor([[1.0, 0.0]]))
    result.backward()
    assert result.isfinite()
    for gradient in (logits.grad, coordinates.grad):
        assert gradient is not None and gradient.isfinite().all()
        assert (gradient[0, 1] == 0).all() and (gradient[0, 0] != 0).all()
