"""SimCC's bins: where a keypoint lies among them, and where a network says it does."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext import ops
from cdkd_ext.codecs import SimCCCodec, SimCCOutput, num_bins
from cdkd_ext.errors import InputError


def output(batch: int = 1, joints: int = 2, bins: tuple[int, int] = (96, 64)) -> SimCCOutput:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(batch, joints, count, generator=generator) for count in bins]
    return SimCCOutput(torch.zeros(batch, joints, 4, 4), *logits)


def test_bins() -> None:
    assert num_bins((64, 48), 2.0) == (96, 128)
    assert num_bins((33, 33), 1.5) == (49, 49)


def test_targets_are_bin_coordinates() -> None:
    keypoints = torch.tensor([[[1.5, 3.0], [31.6, 20.0]]])
    targets, weights = SimCCCodec(3.0).targets(output(), keypoints, torch.tensor([[1.0, 0.5]]))
    torch.testing.assert_close(targets, torch.tensor([[[4.5, 9.0], [94.8, 60.0]]]))
    assert weights.tolist() == [[1.0, 0.5]]


@pytest.mark.parametrize(
    ("keypoint", "weight", "inside"),
    [
        ((31.8, 5.0), 1.0, True),  # 95.4 is nearest to the last of 96 bins
        ((31.9, 5.0), 1.0, False),  # 95.7 is beyond it
        ((5.0, 21.1), 1.0, True),
        ((5.0, 21.3), 1.0, False),
        ((-0.1, 5.0), 1.0, True),
        ((-0.2, 5.0), 1.0, False),
        ((5.0, 5.0), 0.0, False),
        ((float("nan"), 5.0), 0.0, False),
    ],
)
def test_a_joint_beside_the_bins_has_no_target(
    keypoint: tuple[float, float], weight: float, inside: bool
) -> None:
    codec, predicted = SimCCCodec(3.0), output(joints=1)
    targets, weights = codec.targets(predicted, torch.tensor([[keypoint]]), torch.tensor([[weight]]))
    assert bool(weights.item()) is inside
    assert (targets.flatten().tolist() == [-1.0, -1.0]) is not inside
    rows = ops.simcc_kl(predicted.logits_x, targets[..., 0], sigma=1.0)
    assert bool(rows.item() != 0) is inside


def test_half_precision_keypoints_keep_their_fraction_of_a_bin() -> None:
    keypoints = torch.tensor([[[20.25, 20.25]]], dtype=torch.float16)
    targets, _ = SimCCCodec(3.0).targets(output(joints=1), keypoints, torch.ones(1, 1))
    assert targets.dtype == torch.float32 and targets.tolist() == [[[60.75, 60.75]]]


@pytest.mark.parametrize("score", ["min", "max", "mean"])
def test_decoding_is_the_op_with_the_flip_and_the_map_to_the_image(score: str) -> None:
    predicted, mirrored = output(3), output(3)
    permutation = torch.tensor([1, 0])
    to_image = torch.tensor([[[2.0, 0.0, 5.0], [0.0, 2.0, 7.0]]]).expand(3, 2, 3)
    made = SimCCCodec(3.0, score).decode(predicted, flipped=(mirrored, permutation), to_image=to_image)
    expected = ops.simcc_decode(
        *predicted[1:], 3.0, flipped=(*mirrored[1:], permutation), to_image=to_image, score=score
    )
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(made, expected, strict=True))


def test_what_is_trained_towards_is_what_is_read() -> None:
    keypoints = torch.tensor([[[7.0, 3.0], [30.0, 12.0]]])
    codec, shape = SimCCCodec(3.0), output()
    targets, _ = codec.targets(shape, keypoints, torch.ones(1, 2))
    logits = [
        -(torch.arange(count) - targets[..., axis, None]).square() for axis, count in enumerate((96, 64))
    ]
    found, _ = codec.decode(SimCCOutput(shape.feature, *logits))
    torch.testing.assert_close(found, keypoints)
    assert codec.places_per_pixel(shape) == (3.0, 3.0)


def test_bad_parameters() -> None:
    with pytest.raises(InputError, match=r"^split_ratio: "):
        num_bins((4, 4), 0)
    with pytest.raises(InputError, match=r"^split_ratio: "):
        SimCCCodec(-1)
