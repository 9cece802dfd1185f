"""PRTR: published sizes and names, layers against torch's own, matching and loss against plain loops, flips, a training."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cdkd_ext.checkpoints import export_checkpoint, load_checkpoint
from cdkd_ext.errors import InputError
from cdkd_ext.inference import predict_crops
from cdkd_ext.methods.prtr import PRTR, PRTRCodec, PRTRLayer, PRTRLayout, PRTRLoss, PRTROutput, Transformer
from cdkd_ext.methods.tokens import sine_positions
from cdkd_ext.models import count_parameters, create_model, paper_gflops
from cdkd_ext.training import DistillationTask


@pytest.mark.parametrize(("side", "gflops"), [(32, "0.904"), (64, "1.476")])
def test_published_sizes(side: int, gflops: str) -> None:
    with torch.device("meta"):
        network = create_model("hrnet_w32", input_size=(side, side), num_joints=16, head="prtr")
    assert count_parameters(network) == 57_233_747
    assert len(network.state_dict()) == 2147
    assert f"{paper_gflops(network):.3f}" == gflops


def small(**options: Any) -> Any:
    torch.manual_seed(3)
    options = {"input_size": (32, 64), "num_joints": 3, "head": "prtr", "depth": 2} | options
    network = create_model("hrnet_w8_small", **options).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def test_published_names_are_written_and_read(tmp_path: Path) -> None:
    network, other = small(), small()
    for value in other.parameters():
        value.data.zero_()
    export_checkpoint(network, tmp_path / "prtr.pth")
    names = torch.load(tmp_path / "prtr.pth").keys()
    body = "backbone.0.body"
    assert {f"{body}.conv1.weight", f"{body}.incre_modules.3.0.conv3.weight"} <= names
    assert {f"{body}.downsamp_modules.2.1.running_mean", f"{body}.final_layer.0.bias"} <= names
    assert {"transformer.encoder.layers.1.self_attn.in_proj_weight", "transformer.decoder.norm.bias"} <= names
    assert {"transformer.decoder.layers.0.multihead_attn.out_proj.bias", "kpt_embed.layers.2.weight"} <= names
    assert {"class_embed.bias", "query_embed.weight", "input_proj.weight"} <= names
    assert load_checkpoint(other, tmp_path / "prtr.pth").layout == "prtr"
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    assert torch.equal(network(images).logits, other(images).logits)


def test_imagenets_file_fills_the_classification_head(tmp_path: Path) -> None:
    network, donor = small(), small()
    heads = ("input_proj", "transformer", "query_embed", "class_embed", "kpt_embed")
    content = {name: value for name, value in donor.state_dict().items() if not name.startswith(heads)}
    content["classifier.weight"] = torch.zeros(1000, 2048)
    torch.save(content, tmp_path / "imagenet.pth")
    for value in network.parameters():
        value.data.zero_()
    report = load_checkpoint(network, tmp_path / "imagenet.pth", backbone_only=True)
    assert torch.equal(network.final_layer[0].weight, donor.final_layer[0].weight)
    assert {name.split(".")[0] for name in report.missing} == set(heads)


def test_a_missing_backbone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_checkpoint(small(), tmp_path / "hrnet.pth", backbone_only=True)


def test_earlier_layers_come_while_training() -> None:
    network = small()
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    assert network(images).auxiliary == ()
    output = network.train()(images)
    assert len(output.auxiliary) == 1 and output.auxiliary[0].logits.shape == (2, 100, 4)
    assert not torch.equal(output.auxiliary[0].coordinates, output.coordinates)


def test_the_transformer_equals_torchs_layers() -> None:
    torch.manual_seed(0)
    ours = Transformer(PRTRLayout(width=32, hidden=64, heads=4, depth=2)).double()
    encoder = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True).double()
    for value in ours.parameters():
        value.data.normal_(std=0.2)
    memory, queries = torch.randn(2, 6, 32).double(), torch.randn(5, 32).double()
    positions = torch.zeros(1, 6, 32).double()
    # without positions a layer of the encoder is torch's
    layer = ours.encoder["layers"][0]
    encoder.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(memory, positions), encoder(memory))
    # and attention with other keys than values is torch's
    attention = nn.MultiheadAttention(32, 4, batch_first=True).double()
    attention.load_state_dict(ours.decoder["layers"][1].multihead_attn.state_dict())
    asked = queries.expand(2, -1, -1)
    expected, _ = attention(asked, memory + 1, memory)
    torch.testing.assert_close(ours.decoder["layers"][1].multihead_attn(asked, memory + 1, memory), expected)
    results = ours(memory, positions, queries)
    assert len(results) == 2 and results[0].shape == (2, 5, 32)


def test_positions_tell_the_cells_apart() -> None:
    positions = sine_positions(2, 2, 256)[0]
    assert positions.shape == (4, 256)
    assert torch.equal(positions[0, :128], positions[1, :128]) and torch.equal(
        positions[0, 128:], positions[2, 128:]
    )
    assert float(positions[0, 0]) == pytest.approx(math.sin(math.pi), abs=1e-4)


def random_output(queries: int = 4, seed: int = 0) -> PRTROutput:
    generator = torch.Generator().manual_seed(seed)

    def layer() -> PRTRLayer:
        logits = torch.randn(3, queries, 4, generator=generator, dtype=torch.float64)
        return PRTRLayer(logits, torch.rand(3, queries, 2, generator=generator, dtype=torch.float64))

    return PRTROutput(*layer(), (layer(), layer()))


def looped_layer(layer: PRTRLayer, targets: Tensor, weights: Tensor) -> float:
    """Matching by all permutations, then the two terms by loops."""
    entropy = counts = distance = 0.0
    for b in range(3):
        p = layer.logits[b].softmax(-1)

        def cost(query: int, j: int, b: int = b, p: Tensor = p) -> float:
            return -float(p[query, j]) + 5 * float((layer.coordinates[b, query] - targets[b, j]).abs().sum())

        chosen = min(permutations(range(4), 3), key=lambda c: sum(cost(q, j) for j, q in enumerate(c)))
        classes = dict(zip(chosen, range(3), strict=True))
        labelled = bool((weights[b] > 0).any())
        for query in range(4):
            joint = classes.get(query, 3)
            factor = (0.1 if joint == 3 else 1.0) * labelled
            entropy -= factor * math.log(float(p[query, joint]))
            counts += factor
        for j, query in enumerate(chosen):
            for axis in range(2):
                off = abs(float(layer.coordinates[b, query, axis]) - float(targets[b, j, axis]))
                distance += float(weights[b, j]) * off
    return entropy / counts + 5 * 3 * distance / (3 * 3 * 2)


def test_the_loss_against_plain_loops() -> None:
    output = random_output()
    keypoints = torch.rand(3, 3, 2).double() * torch.tensor([64.0, 32.0])
    weights = torch.tensor([[1.0, 0.5, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).double()
    keypoints[1, 1] = math.nan
    targets = torch.where(weights[..., None] > 0, keypoints / torch.tensor([64.0, 32.0]), 0)
    layers = [*output.auxiliary, PRTRLayer(output.logits, output.coordinates)]
    expected = sum(looped_layer(layer, targets, weights) for layer in layers)
    found = PRTRLoss(PRTRCodec((32, 64)))(output, keypoints, weights)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_a_batch_without_labels_has_no_loss_and_no_gradient() -> None:
    output = random_output()
    logits = output.logits.requires_grad_()
    loss = PRTRLoss(PRTRCodec((32, 64)))(output, torch.zeros(3, 3, 2).double(), torch.zeros(3, 3).double())
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and (logits.grad == 0).all()


def test_each_joint_takes_a_query_of_its_own() -> None:
    logits = torch.full((1, 3, 3), -9.0)
    # both joints like query 0 best; the second one has a good alternative
    logits[0, 0], logits[0, 1], logits[0, 2] = (
        torch.tensor(row) for row in ([0.0, 5.0, 0.0], [-4.0, 4.0, 0.0], [-5.0, 0.0, 9.0])
    )
    logits[0, 0, 0] = 5.0
    coordinates = torch.tensor([[[0.25, 0.5], [0.5, 0.25], [0.9, 0.9]]])
    points, scores = PRTRCodec((32, 64)).decode(PRTROutput(logits, coordinates))
    torch.testing.assert_close(points, torch.tensor([[[16.0, 16.0], [32.0, 8.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[0.5, 1 / (1 + math.exp(-8))]]))


def test_the_flip_test_of_a_mirrored_network_changes_nothing() -> None:
    """What a network says of the mirror image that mirrors perfectly: pixel x becomes W - 1 - x, left becomes right."""
    codec, permutation = PRTRCodec((32, 64)), torch.tensor([1, 0, 2])
    output = random_output(queries=100)
    x, y = output.coordinates.unbind(-1)
    mirrored = PRTROutput(output.logits[..., [1, 0, 2, 3]], torch.stack([63 / 64 - x, y], -1))
    found, scores = codec.decode(output, flipped=(mirrored, permutation))
    expected, expected_scores = codec.decode(output)
    torch.testing.assert_close(found, expected)
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


def test_with_a_single_cell_all_queries_say_the_same() -> None:
    """Why it cannot learn at 32x32: attention to one value is that value."""
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    one = small(input_size=(32, 32))(images).coordinates
    torch.testing.assert_close(one, one[:, :1].expand_as(one))
    two = small(input_size=(32, 64))(torch.cat([images, images.flip(-1)], -1)).coordinates
    assert (two[:, 0] - two[:, 1]).abs().max() > 1e-4


@pytest.mark.long
def test_a_training_beats_a_constant_prediction(
    trained: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = PRTRLayout(queries=16, width=64, hidden=128, depth=1, inner=(8, 16, 32, 64), classified=128)
    monkeypatch.setattr(PRTR, "layout", layout)
    result = trained("prtr", side=64, steps=160, rate=3e-3, people=8)
    assert result.last < 0.5 * result.first
    assert result.error < 0.9 * result.constant


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="heads: expected a divisor of 256 channels, got 7"):
        small(heads=7)
    with pytest.raises(InputError, match="num_joints: expected at most 100"):
        small(num_joints=101)
    with pytest.raises(InputError, match=re.escape("which does not give maps of several resolutions")):
        create_model("lowres_small", input_size=(32, 32), num_joints=3, head="prtr")
    student = small()
    with pytest.raises(InputError, match=r"label_loss\.input_size: expected the student's"):
        DistillationTask(student, label_loss=PRTRLoss(PRTRCodec((64, 64))))
