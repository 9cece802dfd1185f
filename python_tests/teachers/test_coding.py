"""Coded distributions: how near they are to the given ones, and in how many bytes."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.teachers.coding import CODES, CodedDistributions, decode, encode


def gaussians(bins, sigma, centers):
    """(1, J, N) logits of Gaussians, a row for each centre."""
    return -((torch.arange(float(bins)) - torch.tensor(centers)[:, None]) / sigma).square().div(2)[None]


def mixture(*rows):
    """(1, J, N) logits of weighted distributions, pairs of weight and logits."""
    return sum(weight * logits.double().softmax(-1) for weight, logits in rows).log().float()


def divergence(logits):
    """(B, J) Kullback-Leibler divergence of the decoded rows from the given ones, in float64."""
    given = logits.double().log_softmax(-1)
    decoded = decode(encode(logits)).double().log_softmax(-1)
    return torch.where(given.isinf(), 0, given.exp() * (given - decoded)).sum(-1)


@pytest.mark.parametrize("bins", [1, 2, 64, 84, 85, 128, 192, 256, 300, 768])
def test_a_row_takes_89_bytes_at_most_whatever_its_bins(bins):
    coded = encode(torch.randn(2, 3, bins))
    width = min(bins, CODES)
    assert coded.codes.shape == (2, 3, width + 2) and coded.codes.dtype == torch.uint8
    assert int(coded.start.min()) >= 0 and int(coded.start.max()) < max(bins, 1)
    decoded = decode(coded)
    assert decoded.shape == (2, 3, bins) and decoded.dtype == torch.float32
    assert (decoded <= 0).all() and (decoded.amax(-1) > -1).all()


@pytest.mark.parametrize("bins", [64, 128, 768])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 6.0, 10.0])
def test_peaks_anywhere_are_coded_to_a_thousandth_of_a_nat(bins, sigma):
    centers = [0.0, 0.3, 2.5, bins / 3, bins / 2 + 0.5, bins - 3.2, bins - 1.0]
    assert divergence(gaussians(bins, sigma, centers)).max() < 1e-3


@pytest.mark.parametrize("sigma", [20.0, 60.0, 300.0])
def test_wide_rows_lose_no_more(sigma):
    assert divergence(gaussians(768, sigma, [3.0, 100.0, 384.0, 700.0])).max() < 1e-3


def test_two_peaks_far_apart_are_both_kept():
    """A left knee taken for the right one: a window of single bins around the higher one would lose 0.5 nats."""
    two = mixture((0.7, gaussians(768, 6.0, [200.0])), (0.3, gaussians(768, 6.0, [600.0])))
    assert divergence(two).max() < 0.006
    decoded = decode(encode(two)).softmax(-1)
    assert decoded[..., 500:].sum() == pytest.approx(0.3, abs=0.02)


def test_clutter_under_a_peak_keeps_its_mass():
    row = mixture((0.9, gaussians(768, 5.0, [300.0])), (0.1, torch.zeros(1, 1, 768)))
    assert divergence(row).max() < 1e-3
    assert decode(encode(row)).softmax(-1)[..., :200].sum() == pytest.approx(0.1 * 200 / 768, rel=0.05)


def test_the_place_of_the_peak_survives():
    centers = [float(center) for center in range(0, 768, 7)]
    logits = gaussians(768, 4.0, centers)
    assert torch.equal(decode(encode(logits)).argmax(-1), logits.argmax(-1))


def test_bins_without_mass_and_without_a_gradient_s_infinity():
    """Marginals that are cut around their peak hold -inf; decoded logits do not."""
    logits = gaussians(64, 1.0, [20.0, 40.0])
    logits[..., :10] = logits[..., 50:] = -torch.inf
    assert divergence(logits).max() < 1e-3
    decoded = decode(encode(logits))
    assert decoded.isfinite().all()
    assert decoded.softmax(-1)[..., :10].sum() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_is_coded(dtype):
    logits = gaussians(128, 3.0, [30.0, 99.5]).to(dtype)
    assert divergence(logits).max() < 1e-4


def test_a_shift_of_the_logits_changes_nothing_and_rows_are_independent():
    # in 64ths, which the shift does not round: two windows that lose almost the same would change places
    logits = torch.randn(3, 4, 300).mul(4 * 64).round() / 64
    coded, shifted = encode(logits), encode(logits + 5)
    for value, wanted in zip(shifted[:3], coded[:3], strict=True):
        assert torch.equal(value, wanted)
    for batch in range(3):
        alone = encode(logits[batch : batch + 1])
        for value, wanted in zip(alone[:3], coded[:3], strict=True):
            assert torch.equal(value[0], wanted[batch])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_distribution_is_refused(value):
    logits = torch.zeros(2, 3, 64)
    logits[1, 2, 5] = value
    with pytest.raises(InputError, match="teacher: expected logits below infinity"):
        encode(logits)
    with pytest.raises(InputError, match="teacher: expected logits below infinity"):
        encode(torch.full((1, 1, 4), -torch.inf))
    with pytest.raises(InputError, match="logits: expected 1 to 21420 bins, got 0 bins"):
        encode(torch.zeros(1, 1, 0))
    with pytest.raises(InputError, match=r"logits: expected shape \(B, J, N\), got \(1, 4\)"):
        encode(torch.zeros(1, 4))


def test_decoding_follows_the_definition():
    """In float64, bin by bin: linear between the blocks' middles, constant outside."""
    codes = torch.tensor([[[200, 255, 0, 51, 102]]], dtype=torch.uint8)
    coded = CodedDistributions(
        codes, torch.tensor([[4]], dtype=torch.int32), torch.tensor([[2]], dtype=torch.uint8), 14
    )
    heights = [-16 * (code / 255) ** 2 for code in (200, 255, 0, 51, 102)]
    expected = []
    for index in range(14):
        place = min(max((index + 0.5 - 4) / 2 + 0.5, 0), 4)
        low = min(int(place), 3)
        expected.append(heights[low] + (heights[low + 1] - heights[low]) * (place - low))
    assert decode(coded)[0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert expected[0] == heights[0] and expected[-1] == heights[-1]


def test_no_rows_are_no_rows():
    assert decode(encode(torch.zeros(0, 17, 768))).shape == (0, 17, 768)


def test_decoding_does_not_make_the_host_wait_for_a_gpu(no_host_reads):
    coded = encode(torch.randn(2, 3, 300))
    with no_host_reads():
        assert decode(coded.to("meta")).shape == (2, 3, 300)
