"""Mirrored teacher outputs against the teacher's, asked about the mirrored crop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cdkd_ext.distillation import TeacherOutput, TeacherSpec, mirror_output
from cdkd_ext.distillation.mirroring import check_mirrors, mirror_rows, mirror_shift
from cdkd_ext.errors import InputError

SWAP = (0, 2, 1)


def gaussian_rows(centers: Tensor, spec: TeacherSpec, spread: float) -> Tensor:
    """Log-probabilities over x bins around places in the teacher's pixels."""
    assert spec.num_bins is not None
    places = spec.bin_origin[0] + torch.arange(spec.num_bins[0]) * (spec.input_size[1] / spec.num_bins[0])
    return (-((places - centers[..., None]) ** 2) / (2 * spread**2)).double().log_softmax(-1).float()


def means(rows: Tensor, spec: TeacherSpec) -> Tensor:
    assert spec.num_bins is not None
    places = spec.bin_origin[0] + torch.arange(spec.num_bins[0]) * (spec.input_size[1] / spec.num_bins[0])
    return (rows.double().softmax(-1) * places).sum(-1)


def finder(crops: Tensor, colors: Tensor, bins: int) -> Tensor:
    """A network that commutes with mirroring: x logits (B, J, bins) of how near each column comes to a joint's colour."""
    away = (crops[:, None].float() - colors[None, :, :, None, None]).square().sum(2)  # (B, J, H, W)
    columns = -away.amin(-2) / 2000
    # several bins per pixel: those between are as far off as what is interpolated
    return torch.nn.functional.interpolate(columns, size=bins, mode="linear", align_corners=True)


@pytest.mark.parametrize("width", [16, 32, 64])
def test_rows_are_those_of_the_mirrored_network_for_the_mirrored_crop(width):
    """A student of `width` pixels sees the flipped crop; the teacher's crop that shows the same is shifted, not flipped."""
    torch.manual_seed(0)
    side, ratio = 64, 64 // width
    scene = torch.randint(0, 256, (1, 3, 8, 3 * side), dtype=torch.uint8)
    colors = torch.tensor([[250.0, 20, 20], [20, 250, 20], [20, 20, 250]])
    start = side
    crop = scene[..., start : start + side]
    # teacher pixel p of the mirrored view is pixel side - ratio - p of the crop
    places = start + side - ratio - torch.arange(side)
    mirrored_crop = scene[..., places]
    spec = TeacherSpec(input_size=(8, side), num_joints=3, num_bins=(side, 8))
    given = finder(crop, colors, side)
    expected = finder(mirrored_crop, colors[list(SWAP)], side)
    rows_y = torch.randn(1, 3, 8)
    got = mirror_output(TeacherOutput(None, given, rows_y), torch.tensor([True]), SWAP, spec, width)
    assert got.logits_x is not None and got.logits_y is not None
    # what the mirrored crop shows beyond the crop nobody has said anything of; bin 0 takes what lies beyond it
    torch.testing.assert_close(
        got.logits_x[..., 1 : side - ratio + 1], expected[..., 1 : side - ratio + 1], rtol=0, atol=0
    )
    assert torch.equal(got.logits_y, rows_y[:, list(SWAP)])


@pytest.mark.parametrize(
    ("bins", "origin"), [(64, 0.0), (128, 0.0), (16, 1.5), (16, 0.0), (48, 0.5), (20, 1.1)]
)
@pytest.mark.parametrize("width", [32, 24, 64])
def test_places_are_where_the_student_s_mirror_puts_them(bins, origin, width):
    spec = TeacherSpec(input_size=(64, 64), num_joints=3, num_bins=(bins, bins), bin_origin=(origin, origin))
    centers = torch.tensor([[25.3, 31.0, 40.9]])
    given = gaussian_rows(centers, spec, 5.0)
    output = TeacherOutput(None, given, given, torch.tensor([[0.1, 0.2, 0.3]]))
    got = mirror_output(output, torch.tensor([True]), SWAP, spec, width)
    assert got.logits_x is not None and got.confidence is not None
    student = centers * width / 64
    expected = (width - 1 - student)[:, list(SWAP)] * 64 / width
    torch.testing.assert_close(means(got.logits_x, spec), expected.double(), rtol=0, atol=5e-3)
    assert torch.equal(got.confidence, output.confidence[:, list(SWAP)])


def test_twice_mirrored_is_the_same_inside():
    spec = TeacherSpec(input_size=(64, 64), num_joints=3, num_bins=(128, 128))
    given = torch.randn(4, 3, 128)
    once = mirror_output(TeacherOutput(None, given, given), torch.ones(4, dtype=torch.bool), SWAP, spec, 32)
    twice = mirror_output(once, torch.ones(4, dtype=torch.bool), SWAP, spec, 32)
    shift = int(mirror_shift(spec, 32, 128))
    assert shift == 4
    assert twice.logits_x is not None
    assert torch.equal(twice.logits_x[..., 1 : 128 - shift], given[..., 1 : 128 - shift])


def test_only_the_chosen_rows_change():
    spec = TeacherSpec(input_size=(64, 64), num_joints=3, num_bins=(64, 64))
    given = torch.randn(3, 3, 64)
    chosen = torch.tensor([False, True, False])
    got = mirror_output(TeacherOutput(None, given, given), chosen, SWAP, spec, 32)
    assert got.logits_x is not None
    assert torch.equal(got.logits_x[~chosen], given[~chosen]) and not torch.equal(got.logits_x[1], given[1])


def test_mass_beyond_the_first_bin_is_counted_there():
    """A cut distribution at the crop's edge would else be no distribution any more."""
    rows = torch.full((1, 1, 16), -math.inf)
    rows[..., 14:] = math.log(0.5)
    for shift in (3.0, 3.5):
        mirrored = mirror_rows(rows, shift).softmax(-1)
        assert mirrored.isfinite().all() and mirrored[0, 0, 0] == 1


def test_heatmaps_mirror_cell_by_cell():
    """Cells of 4 pixels in the teacher's 64 are as wide as the 16-pixel student's: they move by one cell."""
    spec = TeacherSpec(
        input_size=(64, 64), num_joints=3, feature_channels=3, feature_size=(16, 16), feature_mirrors=True
    )
    maps = torch.rand(2, 3, 16, 16)
    got = mirror_output(TeacherOutput(maps), torch.tensor([True, False]), SWAP, spec, 16)
    assert got.feature is not None and got.logits_x is None
    # cell i stands for pixel 4 i, and 15 - x of the student for cell 15 - i
    expected = maps[0][list(SWAP)].flip(-1)
    torch.testing.assert_close(got.feature[0], expected)
    assert torch.equal(got.feature[1], maps[1])
    half = mirror_output(TeacherOutput(maps), torch.tensor([True, True]), SWAP, spec, 32).feature
    assert half is not None
    # half a cell: between two neighbours
    neighbours = maps[:, list(SWAP)].flip(-1)
    torch.testing.assert_close(half[..., 1:], (neighbours[..., 1:] + neighbours[..., :-1]) / 2)


def test_features_before_bins_are_left_out_and_refused():
    spec = TeacherSpec(
        input_size=(64, 64), num_joints=3, num_bins=(64, 64), feature_channels=3, feature_size=(16, 16)
    )
    rows = torch.randn(1, 3, 64)
    output = TeacherOutput(torch.rand(1, 3, 16, 16), rows, rows)
    assert mirror_output(output, torch.tensor([True]), SWAP, spec, 32).feature is None
    with pytest.raises(InputError, match=r"data\.mirror_views: expected one of the two"):
        check_mirrors(spec, features=True)
    check_mirrors(spec, features=False)


def test_nothing_waits_for_the_device(no_host_reads):
    spec = TeacherSpec(input_size=(64, 64), num_joints=3, num_bins=(20, 20), bin_origin=(1.1, 1.1))
    rows = torch.empty(2, 3, 20, device="meta")
    with no_host_reads():
        mirror_output(
            TeacherOutput(None, rows, rows), torch.empty(2, dtype=torch.bool, device="meta"), SWAP, spec, 32
        )


def test_the_shift_is_the_distance_between_the_mirrors():
    spec = TeacherSpec(input_size=(256, 256), num_joints=3, num_bins=(64, 64), bin_origin=(1.5, 1.5))
    assert mirror_shift(spec, 32, 64) == pytest.approx((8 + 3) / 4)
    assert np.isclose(
        mirror_shift(TeacherSpec(input_size=(64, 64), num_joints=1, num_bins=(192, 192)), 64, 192), 3
    )
