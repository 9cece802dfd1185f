"""CAL: published sizes and names, targets, confidence mask and loss against plain loops, decoding, flips, a training."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.checkpoints import export_checkpoint, load_checkpoint
from cdkd_ext.codecs import codec_for
from cdkd_ext.distillation import CCA, SAPE
from cdkd_ext.errors import InputError
from cdkd_ext.inference import predict_crops
from cdkd_ext.methods.cal import CALCodec, CALLoss, CALOutput, confidence_mask
from cdkd_ext.models import count_parameters, create_model, paper_gflops
from cdkd_ext.training import DistillationTask

SIZE, CELLS = (32, 64), (8, 16)


@pytest.mark.parametrize(
    ("name", "side", "joints", "parameters", "gflops"),
    [
        ("hrnet_w32", 32, 17, 49_314_131, "0.2093"),
        ("hrnet_w32", 64, 16, 49_314_032, "0.8373"),
        ("hrnet_w48", 64, 17, 110_322_435, "1.7667"),
    ],
)
def test_published_sizes(name: str, side: int, joints: int, parameters: int, gflops: str) -> None:
    with torch.device("meta"):
        network = create_model(name, input_size=(side, side), num_joints=joints, head="cal")
    assert count_parameters(network) == parameters
    assert len(network.state_dict()) == 2596
    assert f"{paper_gflops(network):.4f}" == gflops


def small(**options: Any) -> Any:
    torch.manual_seed(3)
    options = {"input_size": SIZE, "num_joints": 3, "head": "cal"} | options
    network = create_model("hrnet_w8_small", **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


def random_output(batch: int = 2, joints: int = 3, seed: int = 0) -> CALOutput:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, joints, *CELLS, generator=generator, dtype=torch.float64)
    offsets = torch.randn(batch, 2 * joints, *CELLS, generator=generator, dtype=torch.float64)
    return CALOutput(maps, offsets)


def test_published_names() -> None:
    names = small().state_dict().keys()
    assert {"transition3_om.3.0.0.weight", "stage4_om.0.fuse_layers.0.3.1.running_var"} <= names
    for kind in ("hm", "om"):
        head = f"head_{kind}"
        assert {f"{head}.final_block1.bn2.bias", f"{head}.final_block_{kind}.conv1.weight"} <= names
        assert f"{head}.final_layer_{kind}.bias" in names


def test_the_two_stages_share_nothing_behind_stage_3() -> None:
    network = small()
    network.stage4_om[0].branches[0][0].conv1.weight.data.zero_()
    images = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8)
    before, after = small()(images), network(images)
    assert torch.equal(before.heatmaps, after.heatmaps) and not torch.equal(before.offsets, after.offsets)


def test_an_ordinary_backbone_fills_all_but_the_offsets_stage_and_the_heads(tmp_path: Path) -> None:
    donor = create_model("hrnet_w8_small", input_size=SIZE, num_joints=5, head="heatmap")
    export_checkpoint(donor, tmp_path / "donor.pth")
    report = load_checkpoint(small(), tmp_path / "donor.pth", backbone_only=True)
    parts = {name.split(".")[0] for name in report.missing}
    assert parts == {"transition3_om", "stage4_om", "head_hm", "head_om"}


KEYPOINTS = torch.tensor(
    [[[20.3, 11.7], [0.0, 31.0], [-30.0, 5.0]], [[62.9, 0.2], [math.nan, 3.0], [33.0, 16.1]]]
).double()
WEIGHTS = torch.tensor([[1.0, 0.5, 1.0], [1.0, 0.0, 1.0]]).double()


def looped_targets(sigma: float) -> tuple[Any, Any, Any, Any]:
    """Heatmaps, offsets in cells, disc and weights by loops over cells."""
    maps, ways = torch.zeros(2, 3, *CELLS).double(), torch.zeros(2, 3, 2, *CELLS).double()
    disc, used = torch.zeros(2, 3, *CELLS).double(), torch.zeros(2, 3).double()
    for b in range(2):
        for j in range(3):
            if WEIGHTS[b, j] == 0:
                continue
            px, py = float(KEYPOINTS[b, j, 0]) * 15 / 63, float(KEYPOINTS[b, j, 1]) * 7 / 31
            reach, cx, cy = int(3 * sigma + 0.5), int(px + 0.5), int(py + 0.5)
            if cx - reach >= 16 or cy - reach >= 8 or cx + reach + 1 < 0 or cy + reach + 1 < 0:
                continue
            used[b, j] = WEIGHTS[b, j]
            for y in range(8):
                for x in range(16):
                    squared = (x - px) ** 2 + (y - py) ** 2
                    maps[b, j, y, x] = math.exp(-squared / (2 * sigma**2))
                    if squared <= 16:
                        disc[b, j, y, x] = 1
                        ways[b, j, 0, y, x], ways[b, j, 1, y, x] = px - x, py - y
            maps[b, j][maps[b, j] < 2.220446049250313e-16 * maps[b, j].max()] = 0
    return maps, ways, disc, used


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_targets_by_loops(sigma: float) -> None:
    maps, _, _, used = looped_targets(sigma)
    found, weights = CALCodec(SIZE, sigma=sigma).targets(random_output(), KEYPOINTS, WEIGHTS)
    # float64's precision bounds a double map's tail, float32's a float's
    near = maps > 1.2e-7 * maps.amax((2, 3), keepdim=True)
    torch.testing.assert_close(found[near], maps[near])
    assert (found[~near] == 0).all() and torch.equal(weights, used) and used[0, 2] == 0


def looped_mask(predicted: Tensor, targets: Tensor, used: Tensor) -> Tensor:
    """The confidence mask by loops: fit, density, paste, scale."""
    errors, places = [], {}
    for b in range(2):
        for j in range(3):
            if used[b, j] == 0:
                continue
            best = int(predicted[b, j].argmax()) if predicted[b, j].max() > 0 else 0
            wanted = int(targets[b, j].argmax())
            places[b, j] = wanted
            errors.append((best % 16 - wanted % 16, best // 16 - wanted // 16))
    n = len(errors)
    mx, my = sum(e[0] for e in errors) / n, sum(e[1] for e in errors) / n
    xx = sum((e[0] - mx) ** 2 for e in errors) / n + 1e-6
    yy = sum((e[1] - my) ** 2 for e in errors) / n + 1e-6
    xy = sum((e[0] - mx) * (e[1] - my) for e in errors) / n
    determinant = xx * yy - xy * xy
    mask = torch.zeros(2, 3, *CELLS).double()
    for (b, j), place in places.items():
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                x, y = place % 16 + dx, place // 16 + dy
                if 0 <= x < 16 and 0 <= y < 8:
                    u, v = dx - mx, dy - my
                    squared = (yy * u * u - 2 * xy * u * v + xx * v * v) / determinant
                    mask[b, j, y, x] = math.exp(-0.5 * squared) / (2 * math.pi * math.sqrt(determinant))
        least, most = mask[b, j].min(), mask[b, j].max()
        mask[b, j] = (mask[b, j] - least) / (most - least + 1e-5)
    return mask


def near_output() -> CALOutput:
    """Heatmaps whose maxima are a cell or two from the targets', and one that is nowhere positive."""
    maps, _, _, _ = looped_targets(1.0)
    output = random_output()
    moved = maps.roll((1, -2), (2, 3)) + 0.3 * output.heatmaps
    moved[1, 2] = -1.0
    return output._replace(heatmaps=moved)


def test_the_confidence_mask_by_loops() -> None:
    maps, _, _, used = looped_targets(1.0)
    predicted = near_output().heatmaps.requires_grad_()
    found = confidence_mask(predicted, maps, used)
    torch.testing.assert_close(found, looped_mask(predicted, maps, used))
    assert not found.requires_grad and found.max() > 0.9


@pytest.mark.parametrize("masked", [True, False])
def test_the_loss_against_plain_loops(masked: bool) -> None:
    output = near_output()
    maps, ways, disc, used = looped_targets(1.0)
    mask = looped_mask(output.heatmaps, maps, used) if masked else disc
    scale, weight = (1.5, 0.7) if masked else (1.0, 1.0)
    total = 0.0
    for j in range(3):
        squared = absolute = 0.0
        for b in range(2):
            for y in range(8):
                for x in range(16):
                    w, m = float(used[b, j]), float(mask[b, j, y, x])
                    squared += (w * float(output.heatmaps[b, j, y, x] - maps[b, j, y, x])) ** 2
                    for axis in range(2):
                        wanted = float(ways[b, j, axis, y, x]) / scale
                        absolute += abs(w * m * (float(output.offsets[b, 2 * j + axis, y, x]) - wanted))
        total += 0.5 * squared / (2 * 128) + weight * absolute / (2 * 128 * 2)
    loss = CALLoss(CALCodec(SIZE, scale), offset_weight=weight, confidence_mask=masked)
    assert float(loss(output, KEYPOINTS, WEIGHTS)) == pytest.approx(total / 3, rel=1e-6)


def test_decoding_reads_the_offset_at_the_highest_cell() -> None:
    output = CALOutput(torch.full((1, 2, *CELLS), -1.0), torch.zeros(1, 4, *CELLS))
    output.heatmaps[0, 0, 5, 9] = 0.8
    output.offsets[0, 0, 5, 9], output.offsets[0, 1, 5, 9] = 0.2, -0.4
    output.offsets[0, 2, 0, 0] = 1.0
    points, scores = CALCodec(SIZE).decode(output)
    torch.testing.assert_close(points[0, 0], torch.tensor([9.3 * 63 / 15, 4.4 * 31 / 7]))
    torch.testing.assert_close(points[0, 1], torch.tensor([1.5 * 63 / 15, 0.0]))
    torch.testing.assert_close(scores, torch.tensor([[0.8, -1.0]]))
    output.heatmaps[0, 1, 3, 3] = math.nan
    points, scores = CALCodec(SIZE).decode(output)
    assert points[0, 1].isnan().all() and scores[0, 1].isnan() and points[0, 0].isfinite().all()


def test_targets_and_decoding_meet() -> None:
    codec = CALCodec(SIZE)
    keypoints = torch.tensor([[[20.3, 11.7], [0.0, 31.0], [63.0, 0.5]]])
    maps, _ = codec.targets(random_output(1), keypoints, torch.ones(1, 3))
    ways, _ = codec.ways(random_output(1), keypoints, torch.ones(1, 3))
    points, scores = codec.decode(CALOutput(maps, (ways / 1.5).flatten(1, 2)))
    torch.testing.assert_close(points, keypoints, rtol=0, atol=1e-4)
    assert (scores > 0.7).all()


def test_the_flip_test_of_a_mirrored_network_changes_nothing() -> None:
    """What a network says of the mirror image that mirrors perfectly: maps reversed, offsets along x negated."""
    codec, permutation = CALCodec(SIZE), torch.tensor([1, 0, 2])
    output = random_output()
    offsets = output.offsets.unflatten(1, (3, 2)).flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
    mirrored = CALOutput(output.heatmaps.flip(-1)[:, permutation], offsets[:, permutation].flatten(1, 2))
    found, expected = codec.decode(output, flipped=(mirrored, permutation)), codec.decode(output)
    assert all(map(torch.equal, found, expected))


def test_the_flip_test_is_symmetric() -> None:
    network = small()
    permutation = torch.tensor([1, 0, 2])
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    points, scores = predict_crops(network, images, flip_permutation=permutation)
    other, other_scores = predict_crops(network, images.flip(-1), flip_permutation=permutation)
    back = torch.stack([63 - other[..., 0], other[..., 1]], -1)[:, permutation]
    torch.testing.assert_close(back, points, rtol=0, atol=1e-3)
    torch.testing.assert_close(other_scores[:, permutation], scores)


def test_a_gpu_is_not_waited_for(no_host_reads: Callable[[], Any]) -> None:
    with no_host_reads(), torch.device("meta"):
        output = CALOutput(torch.zeros(2, 3, *CELLS), torch.zeros(2, 6, *CELLS))
        loss = CALLoss(CALCodec(SIZE))(output, torch.zeros(2, 3, 2), torch.zeros(2, 3))
    assert loss.shape == ()


def test_heatmaps_are_distilled_by_sape_and_not_by_cca() -> None:
    student = small(input_size=(32, 32))
    teacher = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=3, head="heatmap")
    task = DistillationTask(student, teacher)
    images = [torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8) for side in (32, 64)]
    losses = task(*images, torch.rand(2, 3, 2) * 31, torch.ones(2, 3))
    assert {"total", "cal", "sape"} <= losses.keys()
    with pytest.raises(
        InputError, match="cca: expected None: CCA aligns classes and heatmaps, got a CCA for a student of"
    ):
        DistillationTask(student, teacher, sape=SAPE.between(student, teacher), cca=CCA())


@pytest.mark.long
def test_a_training_beats_a_constant_prediction(trained: Callable[..., Any]) -> None:
    result = trained("cal", steps=100, rate=3e-3, people=16)
    assert result.last < 0.5 * result.first
    assert result.error < 0.9 * result.constant


def test_what_it_refuses() -> None:
    with pytest.raises(
        InputError, match=re.escape("head: expected another for resnet50, which does not give two")
    ):
        create_model("resnet50", input_size=(32, 32), num_joints=3, head="cal")
    with pytest.raises(InputError, match="offset_scale: expected a positive number"):
        small(offset_scale=-1.0)
    student = small()
    with pytest.raises(InputError, match=re.escape("label_loss.offset_scale: expected the student's 1.5")):
        DistillationTask(student, label_loss=CALLoss(CALCodec(SIZE, 1.0)))
    assert codec_for(student.spec) == CALCodec(SIZE, 1.5)
