"""DistilPose: published sizes and names, losses against plain loops, decoding, flips, a training, and what teaches it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cdkd_ext.checkpoints import export_checkpoint, load_checkpoint
from cdkd_ext.data import CropRegion, crop_matrix, transform_points
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.errors import InputError
from cdkd_ext.inference import predict_crops
from cdkd_ext.methods.distilpose import (
    DistilPoseCodec,
    DistilPoseLoss,
    DistilPoseOutput,
    HeatmapTeaching,
    drawn_distance,
    score_distance,
)
from cdkd_ext.methods.tokenpose import TokenPoseCodec, TokenPoseOutput
from cdkd_ext.models import count_parameters, create_model, paper_gflops
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationTask
from cdkd_ext.training.config import CCAConfig, DistillationConfig, SAPEConfig

SIZE = (32, 64)


@pytest.mark.parametrize(
    ("side", "parameters", "gflops"), [(32, 33_012_421, "0.31"), (64, 33_086_149, "0.79")]
)
def test_published_sizes(side: int, parameters: int, gflops: str) -> None:
    with torch.device("meta"):
        network = create_model("hrnet_w32", input_size=(side, side), num_joints=17, head="distilpose")
    assert count_parameters(network) == parameters
    assert len(network.state_dict()) == 1892
    assert f"{paper_gflops(network):.2f}" == gflops
    # 16 visual tokens at either size
    assert network.tokenhead.pos_embedding.shape == (1, 16, 192)


def small(**options: Any) -> Any:
    torch.manual_seed(3)
    options = {"input_size": SIZE, "num_joints": 3, "head": "distilpose", "depth": 2} | options
    network = create_model("hrnet_w8_small", **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


def test_published_names_are_written_and_read(tmp_path: Path) -> None:
    network, other = small(), small()
    for value in other.parameters():
        value.data.zero_()
    export_checkpoint(network, tmp_path / "distilpose.pth")
    content = torch.load(tmp_path / "distilpose.pth")
    head = "keypoint_head.tokenhead"
    assert {"backbone.conv1.weight", f"{head}.keypoint_token", f"{head}.mlp_head.1.bias"} <= content.keys()
    assert {f"{head}.pos_embedding", f"{head}.transformer.layers.1.0.fn.fn.to_qkv.weight"} <= content.keys()
    # mmpose's files hold them in a state_dict
    torch.save({"meta": {}, "state_dict": content}, tmp_path / "nested.pth")
    assert load_checkpoint(other, tmp_path / "nested.pth").layout == "distilpose"
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    assert torch.equal(network(images).coordinates, other(images).coordinates)


def random_output(seed: int = 0) -> DistilPoseOutput:
    generator = torch.Generator().manual_seed(seed)
    coordinates, sigmas = (torch.rand(2, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    scores = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    output = DistilPoseOutput(coordinates, scores, 2 * sigmas + 0.1)
    tokens = [torch.randn(2, n, 192, generator=generator, dtype=torch.float64) for n in (3, 8)]
    output.tokens = (tokens[0], tokens[1])
    return output


def test_the_output_unpacks_into_three() -> None:
    coordinates, scores, sigmas = small()(torch.zeros(2, 3, *SIZE, dtype=torch.uint8))
    assert coordinates.shape == (2, 3, 2) and scores.shape == (2, 3) and sigmas.shape == (2, 3, 2)
    assert (sigmas > 0).all() and ((coordinates > 0) & (coordinates < 1)).all()
    assert DistilPoseOutput._fields == ("coordinates", "scores", "sigmas")


def test_the_label_loss_against_plain_loops() -> None:
    output = random_output()
    keypoints = torch.tensor(
        [[[10.0, 20.0], [63.5, 4.0], [63.0, 31.0]], [[0.0, 0.0], [math.nan, 2.0], [33.0, -0.5]]]
    ).double()
    weights = torch.tensor([[1.0, 1.0, 0.5], [1.0, 0.0, 1.0]]).double()
    total = 0.0
    for b, j in ((0, 0), (0, 2), (1, 0)):
        for axis, size in enumerate((64, 32)):
            target = float(keypoints[b, j, axis]) / size
            off = abs(float(weights[b, j]) * (float(output.coordinates[b, j, axis]) - target))
            total += 0.5 * off**2 if off < 1 else off - 0.5
    found = DistilPoseLoss(DistilPoseCodec(SIZE))(output, keypoints, weights)
    assert float(found) == pytest.approx(total / (2 * 3 * 2), rel=1e-12)


def test_a_prediction_of_nan_makes_the_losses_nan() -> None:
    output, maps = random_output(), torch.rand(2, 3, 8, 16, dtype=torch.float64)
    output.coordinates[1, 2, 0] = math.nan
    weights = torch.ones(2, 3, dtype=torch.float64)
    assert score_distance(output, maps, weights).isnan()
    assert drawn_distance(output, maps, weights).isnan()
    assert DistilPoseLoss(DistilPoseCodec(SIZE))(output, 10 * torch.rand(2, 3, 2), weights).isnan()


def test_the_score_loss_against_plain_loops() -> None:
    output, maps = random_output(), torch.rand(2, 3, 8, 16, dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0]]).double()
    total = 0.0
    for b in range(2):
        for j in range(3):
            x, y = (round(float(c) * n) for c, n in zip(output.coordinates[b, j], (15, 7), strict=True))
            total += float(weights[b, j]) * abs(float(output.scores[b, j]) - float(maps[b, j, y, x]))
    assert float(score_distance(output, maps, weights)) == pytest.approx(total / 6, rel=1e-12)


def test_the_drawn_heatmaps_against_plain_loops() -> None:
    """Each person's difference counts by that person's weights, which the release multiplies across the batch."""
    output, maps = random_output(), torch.rand(2, 3, 8, 16, dtype=torch.float64)
    output.coordinates[0, 2] = torch.tensor([1.4, 0.5])
    output.sigmas[0, 2] = 0.1
    weights = torch.tensor([[1.0, 0.0, 1.0], [0.5, 1.0, 1.0]]).double()
    total = 0.0
    for b in range(2):
        for j in range(3):
            mx, my = float(output.coordinates[b, j, 0]) * 15, float(output.coordinates[b, j, 1]) * 7
            sx, sy = output.sigmas[b, j].tolist()
            if mx - 3 * sx >= 16 or my - 3 * sy >= 8 or mx + 3 * sx + 1 < 0 or my + 3 * sy + 1 < 0:
                assert (b, j) == (0, 2)
                continue
            for y in range(8):
                for x in range(16):
                    power = (x - mx) ** 2 / (sx**2 + 1e-9) + (y - my) ** 2 / (sy**2 + 1e-9)
                    off = float(weights[b, j]) * (math.exp(-0.5 * power) - float(maps[b, j, y, x]))
                    total += off**2
    assert float(drawn_distance(output, maps, weights)) == pytest.approx(total / (6 * 128), rel=1e-12)


@pytest.mark.parametrize("side", [32, 64])
def test_a_teacher_that_is_right_teaches_what_the_labels_do(side: int) -> None:
    """A joint's place in the student's crop and its cell in the map of the teacher, whose crops are unbiased, are one."""
    region = CropRegion((50.0, 40.0), (60.0, 60.0), rotation=20.0)
    joints = np.random.default_rng(0).uniform((35, 25), (65, 55), (5, 2))
    pixels = {
        unbiased: torch.from_numpy(
            transform_points(joints, crop_matrix(region, (side, side), unbiased=unbiased))
        )[None]
        for unbiased in (False, True)
    }
    seen = TokenPoseOutput(torch.zeros(1, 5, side // 4, side // 4, dtype=torch.float64))
    maps, taught = TokenPoseCodec((side, side), sigma=1.0).targets(seen, pixels[True], torch.ones(1, 5))
    coordinates, _ = DistilPoseCodec((side, side)).targets(None, pixels[False], torch.ones(1, 5))
    coordinates.requires_grad_()
    output = DistilPoseOutput(coordinates, torch.zeros(1, 5), torch.ones(1, 5, 2, dtype=torch.float64))
    distance = drawn_distance(output, maps, taught)
    assert float(distance.detach()) < 1e-12
    assert torch.autograd.grad(distance, coordinates)[0].abs().max() < 1e-6


def test_nothing_is_taught_about_joints_outside_the_crop() -> None:
    task = DistillationTask(small(), tokenpose()).eval()
    images = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8)
    inside = torch.rand(1, 3, 2, generator=torch.Generator().manual_seed(0)) * 31
    outside = inside.clone()
    outside[0, 1] = torch.tensor([70.0, 3.0])
    annotated, without = torch.ones(1, 3), torch.tensor([[1.0, 0.0, 1.0]])
    with torch.no_grad():
        found, expected = (
            task(images, images, keypoints, weights)
            for keypoints, weights in ((outside, annotated), (inside, without))
        )
        taught = task(images, images, outside, annotated, labelled=torch.zeros(1))
    for term in ("score", "heatmap"):
        assert torch.equal(found[term], expected[term]) and not torch.equal(taught[term], found[term])


def test_what_a_teacher_teaches_is_weighted() -> None:
    output, maps = random_output(), torch.rand(2, 3, 8, 16, dtype=torch.float64)
    assert output.tokens is not None
    taught = TeacherOutput(maps, None, None, None, output.tokens[0] + 1.0, output.tokens[1] - 2.0)
    weights = torch.ones(2, 3).double()
    terms = HeatmapTeaching()(output, taught, weights)
    assert float(terms["token"]) == pytest.approx(5e-4 * (1 + 4))
    torch.testing.assert_close(terms["score"], 0.01 * score_distance(output, maps, weights))
    torch.testing.assert_close(terms["heatmap"], drawn_distance(output, maps, weights))
    with pytest.raises(
        InputError, match=r"teacher\.keypoint_tokens: expected those of a teacher that is asked"
    ):
        HeatmapTeaching()(output, TeacherOutput(maps), weights)
    output.tokens = None
    with pytest.raises(InputError, match=r"student\.tokens: expected those of a network"):
        HeatmapTeaching()(output, taught, weights)


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_what_a_teacher_teaches_is_widened(dtype: torch.dtype, close: float) -> None:
    """A sigma whose square float16 does not hold, and coordinates a fraction of a cell apart."""
    exact, maps = random_output(), torch.rand(2, 3, 8, 16, dtype=torch.float64)
    narrow = [value.detach().to(dtype) for value in exact]
    narrow[2][0, 0] = 1e-5
    found = {}
    for kind in (dtype, torch.float64):
        values = [value.to(kind).requires_grad_() for value in narrow]
        output = DistilPoseOutput(*values)
        terms = score_distance, drawn_distance
        wide = torch.promote_types(kind, torch.float32)
        result = sum(term(output, maps.to(dtype).to(wide), torch.ones(2, 3)) for term in terms)
        found[kind] = [result, *torch.autograd.grad(result, values)]
    for got, expected in zip(found[dtype], found[torch.float64], strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=close, atol=1e-6)


def test_a_gpu_is_not_waited_for(no_host_reads: Callable[[], Any]) -> None:
    with no_host_reads(), torch.device("meta"):
        output = DistilPoseOutput(torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.zeros(2, 3, 2))
        output.tokens = (torch.zeros(2, 3, 8), torch.zeros(2, 4, 8))
        taught = TeacherOutput(torch.zeros(2, 3, 8, 16), None, None, None, *output.tokens)
        terms = HeatmapTeaching()(output, taught, torch.zeros(2, 3))
        loss = DistilPoseLoss(DistilPoseCodec(SIZE))(output, torch.zeros(2, 3, 2), torch.zeros(2, 3))
    assert {term.shape for term in terms.values()} == {loss.shape} == {()}


def tokenpose(**options: Any) -> Any:
    torch.manual_seed(4)
    options = {"input_size": SIZE, "num_joints": 3, "head": "tokenpose_b", "depth": 2, "patch": 2} | options
    return create_model("hrnet_w8_small", **options)


def test_a_tokenpose_teaches_tokens_scores_and_sigmas() -> None:
    task = DistillationTask(small(), tokenpose()).train()
    images = torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8)
    keypoints, annotated = torch.rand(4, 3, 2) * 31, torch.ones(4, 3)
    losses = task(images, images, keypoints, annotated)
    assert losses.keys() == {"total", "distilpose", "token", "score", "heatmap"}
    named = [losses[name] for name in ("distilpose", "token", "score", "heatmap")]
    torch.testing.assert_close(losses["total"], torch.stack(named).sum())
    losses["total"].backward()
    last = task.student.tokenhead.mlp_head[1]
    # without a teacher nothing reaches scores and sigmas
    assert (last.weight.grad.abs().sum(1) > 0).all()
    alone = DistillationTask(small())
    alone(images, None, keypoints, annotated)["total"].backward()
    assert (alone.student.tokenhead.mlp_head[1].weight.grad[2:] == 0).all()


def test_a_stored_output_with_tokens_equals_a_live_teacher() -> None:
    teacher = FrozenTeacher(tokenpose())
    task = DistillationTask(small(), teacher)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    labels = (torch.rand(2, 3, 2) * 31, torch.ones(2, 3))
    live = task(images, images, *labels)
    stored = task(images, None, *labels, teacher_output=teacher(images))
    assert teacher.tokens and all(torch.equal(value, stored[name]) for name, value in live.items())


def test_which_teachers_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"teacher\.patch: expected 2, as the student's, got 4"):
        DistillationTask(small(), tokenpose(patch=4))
    with pytest.raises(InputError, match=r"teacher\.input_size: expected the student's \(32, 64\)"):
        DistillationTask(small(), tokenpose(input_size=(64, 128)))
    with pytest.raises(InputError, match=r"teacher\.stem_stride: expected 4, as the student's, got 2"):
        DistillationTask(small(), tokenpose(stem_stride=2))
    simcc = create_model("hrnet_w8_small", input_size=SIZE, num_joints=3)
    with pytest.raises(
        InputError, match="teaching: expected a student 'distilpose' and a teacher 'tokenpose_b'"
    ):
        DistillationTask(simcc, tokenpose(), cca=None, teaching=HeatmapTeaching())
    with pytest.raises(TypeError, match="teaching: expected a Teaching, None or 'auto', got str"):
        DistillationTask(small(), tokenpose(), teaching="yes")  # type: ignore[arg-type]
    heatmaps = create_model("hrnet_w8_small", input_size=SIZE, num_joints=3, head="heatmap")
    with pytest.raises(InputError, match="teacher: expected a term that the student learns by"):
        DistillationTask(small(), heatmaps)
    config = DistillationConfig(sape=SAPEConfig(enabled=False), cca=CCAConfig(enabled=False))
    config.teaching.enabled = True
    assert isinstance(config.terms(small(), FrozenTeacher(tokenpose()))["teaching"], HeatmapTeaching)
    assert config.uses_features()
    with pytest.raises(InputError, match=r"teaching\.enabled: expected false, or distilpose"):
        config.terms(small(), FrozenTeacher(heatmaps))


def test_targets_and_decoding_meet() -> None:
    codec = DistilPoseCodec(SIZE)
    keypoints = torch.tensor([[[0.0, 0.0], [63.0, 31.0], [63.1, 3.0]]])
    targets, used = codec.targets(None, keypoints, torch.ones(1, 3))
    assert used.tolist() == [[1, 1, 0]]
    scores = torch.tensor([[-3.0, 0.5, 2.0]])
    points, found = codec.decode(DistilPoseOutput(targets, scores, torch.ones(1, 3, 2)))
    torch.testing.assert_close(points[:, :2], keypoints[:, :2])
    assert torch.equal(found, scores)


def test_the_flip_test_of_a_mirrored_network_changes_nothing() -> None:
    """Pixel x becomes W - 1 - x, and left becomes right in coordinates and scores."""
    codec, permutation = DistilPoseCodec(SIZE), torch.tensor([1, 0, 2])
    output = random_output()
    x, y = output.coordinates.unbind(-1)
    mirrored = DistilPoseOutput(
        torch.stack([63 / 64 - x, y], -1)[:, permutation], output.scores[:, permutation], output.sigmas
    )
    found, scores = codec.decode(output, flipped=(mirrored, permutation))
    expected, expected_scores = codec.decode(output)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(scores, expected_scores)


def test_the_flip_test_is_symmetric() -> None:
    network = small()
    permutation = torch.tensor([1, 0, 2])
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    points, scores = predict_crops(network, images, flip_permutation=permutation)
    other, other_scores = predict_crops(network, images.flip(-1), flip_permutation=permutation)
    back = torch.stack([63 - other[..., 0], other[..., 1]], -1)[:, permutation]
    torch.testing.assert_close(back, points, rtol=0, atol=1e-4)
    torch.testing.assert_close(other_scores[:, permutation], scores)


@pytest.mark.long
def test_a_training_beats_a_constant_prediction(trained: Callable[..., Any]) -> None:
    result = trained("distilpose", steps=240, rate=1e-3, people=8, depth=1)
    assert result.last < 0.5 * result.first
    assert result.error < 0.9 * result.constant


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="patch: expected"):
        small(patch=3)
    with pytest.raises(InputError, match="heads: expected a divisor of 192 channels, got 7"):
        small(heads=7)
    with pytest.raises(InputError, match="channels_per_joint: expected 1 for a distilpose head"):
        small(channels_per_joint=2)
    with pytest.raises(InputError, match=re.escape("label_loss.input_size: expected the student's")):
        DistillationTask(small(), label_loss=DistilPoseLoss(DistilPoseCodec((64, 64))))
