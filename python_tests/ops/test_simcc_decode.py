from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cdkd_ext import ops
from cdkd_ext.errors import InputError
from cdkd_ext.ops import reference

EITHER = pytest.mark.parametrize(
    "simcc_decode", [ops.simcc_decode, reference.simcc_decode], ids=["compiled", "reference"]
)
Decode = Callable[..., tuple[Tensor, Tensor]]


def peak(bins: int, *where: int) -> Tensor:
    """Logits (1, 1, bins) that are all but certain of these bins."""
    logits = torch.full((1, 1, bins), -30.0)
    logits[..., list(where)] = 0.0
    return logits


@EITHER
def test_by_hand(simcc_decode: Decode) -> None:
    logits_x = torch.tensor([[[1.0, 4.0, 3.0, 2.0]]]).log()
    logits_y = torch.tensor([[[1.0, 1.0, 6.0]]]).log()
    for score, expected in (("min", 0.4), ("max", 0.75), ("mean", 0.575)):
        keypoints, scores = simcc_decode(logits_x, logits_y, 2.0, score=score)
        assert keypoints.tolist() == [[[0.5, 1.0]]]
        assert scores.item() == pytest.approx(expected)


@EITHER
def test_ties_go_to_the_lowest_bin(simcc_decode: Decode) -> None:
    logits_x, logits_y = peak(40, 7, 19, 33), torch.zeros(1, 1, 40)
    keypoints, scores = simcc_decode(logits_x, logits_y, 1.0, score="max")
    assert keypoints.tolist() == [[[7.0, 0.0]]]
    assert scores.item() == pytest.approx(1 / 3)
    flipped = (peak(40, 39 - 7, 39 - 19, 39 - 33), logits_y, torch.tensor([0]))
    keypoints, _ = simcc_decode(logits_x, logits_y, 1.0, flipped=flipped)
    assert keypoints.tolist() == [[[7.0, 0.0]]]


@EITHER
@pytest.mark.parametrize("split_ratio", [1, 2, 3, 4])
def test_mirrored_bins_meet(simcc_decode: Decode, split_ratio: int) -> None:
    """A joint at pixel x is at width - 1 - x in the mirrored image; any other alignment halves the score."""
    width = 9
    bins = width * split_ratio
    y = peak(12, 4)
    for x in range(width):
        mirrored = peak(bins, split_ratio * (width - 1 - x))
        keypoints, scores = simcc_decode(
            peak(bins, split_ratio * x), y, split_ratio, flipped=(mirrored, y, torch.tensor([0]))
        )
        assert keypoints[0, 0, 0].item() == x
        assert scores.item() > 0.99


def test_mirrored_bins_by_hand() -> None:
    # k = 2, width 3: bins 0 to 4 mirror to 4 to 0, bin 5 to the outside
    mirrored = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.05, 0.2])
    assert reference.mirror_sum(6, 2) == 4
    expected = [0.05, 0.15, 0.3, 0.2, 0.1, 0.0]
    torch.testing.assert_close(reference.unmirror(mirrored, 2), torch.tensor(expected))
    own = torch.tensor([0.3, 0.1, 0.1, 0.1, 0.1, 0.3])
    averaged = [(a + b) / 2 for a, b in zip(own.tolist(), expected, strict=True)]
    y = peak(4, 1)
    keypoints, scores = ops.simcc_decode(
        own.log()[None, None], y, 2, flipped=(mirrored.log()[None, None], y, torch.tensor([0]))
    )
    assert keypoints.tolist() == [[[1.0, 0.5]]]
    assert scores.item() == pytest.approx(max(averaged))


@pytest.mark.parametrize(
    ("width", "split_ratio"), [(48, 8 / 3), (50, 8 / 3), (64, 1.5), (63, 1.5), (33, 2.5), (7, 1)]
)
def test_a_fractional_split_ratio_is_at_most_one_bin_off(width: int, split_ratio: float) -> None:
    bins = int(width * split_ratio)
    total = reference.mirror_sum(bins, split_ratio)
    for x in range(width):
        assert abs(total - round(split_ratio * x) - round(split_ratio * (width - 1 - x))) <= 1


@EITHER
def test_joints_are_swapped_back(simcc_decode: Decode) -> None:
    # joints: nose, left, right; in the mirrored image the left hand is found under the right one's name
    y = torch.cat([peak(8, 2), peak(8, 3), peak(8, 5)], 1)
    x = torch.cat([peak(8, 4), peak(8, 1), peak(8, 6)], 1)
    mirrored_x = torch.cat([peak(8, 3), peak(8, 1), peak(8, 6)], 1)
    mirrored_y = y[:, [0, 2, 1]]
    keypoints, scores = simcc_decode(x, y, 1, flipped=(mirrored_x, mirrored_y, torch.tensor([0, 2, 1])))
    assert keypoints.tolist() == [[[4, 2], [1, 3], [6, 5]]]
    assert (scores > 0.99).all()


@EITHER
def test_to_image(simcc_decode: Decode) -> None:
    x, y = torch.cat([peak(8, 2), peak(8, 3)]), torch.cat([peak(8, 4), peak(8, 5)])
    to_image = torch.tensor([[[2.0, 0.5, 10.0], [-1.0, 3.0, 20.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    keypoints, _ = simcc_decode(x, y, 1, to_image=to_image)
    assert keypoints.tolist() == [[[2 * 2 + 0.5 * 4 + 10, -2 + 3 * 4 + 20]], [[3, 5]]]


@EITHER
@pytest.mark.parametrize("bad", ["nan", "all -inf", "+inf"])
@pytest.mark.parametrize("flip", [False, True])
def test_no_location_from_nonsense(simcc_decode: Decode, bad: str, flip: bool) -> None:
    x, y = torch.randn(1, 4, 33), torch.randn(1, 4, 20)
    flipped = (torch.randn(1, 4, 33), torch.randn(1, 4, 20), torch.tensor([0, 1, 3, 2])) if flip else None
    row = {"nan": x[0, 1, 7:8], "all -inf": y[0, 1], "+inf": x[0, 1, 3:4]}[bad]
    row.fill_({"nan": math.nan, "all -inf": -math.inf, "+inf": math.inf}[bad])
    hurt = [False, True, False, False]
    if flipped:
        flipped[1][0, 2, 19] = math.nan  # joint 3 in the picture
        hurt[3] = True
    keypoints, scores = simcc_decode(x, y, 2.0, flipped=flipped, to_image=torch.eye(3)[None, :2])
    assert keypoints.isnan().all(-1).tolist() == [hurt]
    assert scores.isnan().tolist() == [hurt]


@settings(max_examples=60)
@given(
    bins=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    split_ratio=st.sampled_from([1.0, 1.5, 2.0, 8 / 3, 3.0]),
    flip=st.booleans(),
    score=st.sampled_from(["min", "max", "mean"]),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_reference(
    bins: tuple[int, int], split_ratio: float, flip: bool, score: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y, mirrored_x, mirrored_y = (torch.randn(2, 5, n, generator=generator) * 3 for n in bins * 2)
    options: dict[str, Any] = {"score": score, "to_image": torch.randn(2, 2, 3, generator=generator)}
    if flip:
        options["flipped"] = (mirrored_x, mirrored_y, torch.randperm(5, generator=generator))
    torch.testing.assert_close(
        ops.simcc_decode(x, y, split_ratio, **options),
        reference.simcc_decode(x, y, split_ratio, **options),
        rtol=1e-5,
        atol=1e-5,
    )


def test_agrees_with_the_usual_numpy_code() -> None:
    x, y = torch.randn(8, 17, 192) * 3, torch.randn(8, 17, 160) * 3
    keypoints, scores = ops.simcc_decode(x, y, 3.0)
    expected = np.stack((x.numpy().argmax(-1), y.numpy().argmax(-1)), -1).astype(np.float32) / 3
    np.testing.assert_array_equal(keypoints.numpy(), expected)
    peaks = [np.exp(a.numpy()).max(-1) / np.exp(a.numpy()).sum(-1) for a in (x, y)]
    np.testing.assert_allclose(scores.numpy(), np.minimum(*peaks), rtol=1e-5)


def test_scores_stay_within_one() -> None:
    x = torch.full((1, 1, 64), -1e4)
    x[..., 9] = 1e4
    _, scores = ops.simcc_decode(x, x, 1.0, flipped=(x.flip(-1), x, torch.tensor([0])), score="max")
    assert scores.item() == 1.0


def test_compiled_with_changing_split_ratios() -> None:
    compiled = torch.compile(ops.simcc_decode, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 24)
    for split_ratio in (1.0, 2.0, 3.0):
        torch.testing.assert_close(compiled(x, x, split_ratio), ops.simcc_decode(x, x, split_ratio))


X, Y, P = torch.zeros(2, 3, 8), torch.zeros(2, 3, 6), torch.arange(3)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((X.numpy(), Y, 1.0), {}, TypeError, "logits_x: expected a torch.Tensor, got ndarray"),
        ((X, Y.int(), 1.0), {}, TypeError, "logits_y: expected dtype float32"),
        ((X[0], Y, 1.0), {}, InputError, r"logits_x: expected shape \(B, J, bins\), got \(3, 8\)"),
        ((X, Y[:1], 1.0), {}, InputError, r"logits_y: expected shape \(2, 3, bins\), got \(1, 3, 6\)"),
        ((X, Y[..., :0], 1.0), {}, InputError, r"logits_y: .* at least one bin, got \(2, 3, 0\)"),
        ((X, Y, 0.0), {}, InputError, "split_ratio: expected a positive finite number, got 0.0"),
        ((X, Y, math.nan), {}, InputError, "split_ratio: expected a positive finite number, got nan"),
        ((X, Y, None), {}, TypeError, "split_ratio: expected a number, got NoneType"),
        ((X, Y, 1.0), {"score": "sum"}, InputError, "score: expected one of 'min', 'max', 'mean', got 'sum'"),
        ((X, Y, 1.0), {"flipped": (X, Y)}, InputError, r"flipped: expected \(logits_x, .*, got 2 values"),
        ((X, Y, 1.0), {"flipped": X}, TypeError, "flipped: expected .*, got Tensor"),
        (
            (X, Y, 1.0),
            {"flipped": (Y, Y, P)},
            InputError,
            r"flipped\[0\]: expected shape \(2, 3, 8\), got \(2, 3, 6\)",
        ),
        ((X, Y, 1.0), {"flipped": (X, X, P)}, InputError, r"flipped\[1\]: expected shape \(2, 3, 6\)"),
        (
            (X, Y, 1.0),
            {"flipped": (X, Y, P.int())},
            TypeError,
            r"flipped\[2\]: expected dtype int64, got int32",
        ),
        (
            (X, Y, 1.0),
            {"flipped": (X, Y, P[:2])},
            InputError,
            r"flipped\[2\]: expected shape \(3,\), got \(2,\)",
        ),
        (
            (X, Y, 1.0),
            {"flipped": (X, Y, P * 0)},
            InputError,
            r"flipped\[2\]: expected a permutation of 0 to 2",
        ),
        ((X, Y, 1.0), {"to_image": torch.zeros(2, 3)}, InputError, r"to_image: expected shape \(2, 2, 3\)"),
        (
            (X, Y, 1.0),
            {"to_image": torch.zeros(2, 2, 3).int()},
            TypeError,
            "to_image: expected dtype float32",
        ),
        ((X, Y.to("meta"), 1.0), {}, InputError, "logits_y: expected a tensor on cpu, got one on meta"),
    ],
)
def test_mistakes(args: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.simcc_decode(*args, **options)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((X[0], Y, 1.0), {}, r"logits_x: expected shape \(B, J, bins\), got \(3, 8\)"),
        ((X, Y[:1], 1.0), {}, r"logits_y: expected shape \(2, 3, bins\), got \(1, 3, 6\)"),
        ((X.int(), Y, 1.0), {}, "logits_x: expected dtype float32, float64, bfloat16 or float16, got int32"),
        ((X, Y, -1.0), {}, "split_ratio: expected a positive finite number, got -1"),
        ((X, Y, 1.0), {"score": "sum"}, "score: expected one of 'min', 'max', 'mean', got 'sum'"),
        ((X, Y, 1.0), {"flipped": [X, Y]}, "flipped: expected .*, got 2 values"),
        ((X, Y, 1.0), {"flipped": [X, Y, P + 1]}, r"flipped\[2\]: expected a permutation of 0 to 2, got 3"),
        ((X, Y, 1.0), {"flipped": [X, Y, P * 0]}, r"flipped\[2\]: expected a permutation of 0 to 2, got 0"),
        (
            (X, Y, 1.0),
            {"to_image": torch.zeros(1, 2, 3)},
            r"to_image: expected shape \(2, 2, 3\), got \(1, 2, 3\)",
        ),
    ],
)
def test_mistakes_with_the_raw_op(args: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.cdkd.simcc_decode(*args, **options)
