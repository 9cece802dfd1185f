"""Heatmaps as distributions: against loops, and as what a network of this package teaches."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.codecs import HeatmapOutput, decode_heatmaps
from cdkd_ext.distillation import CCA, HeatmapCCA, TeacherOutput, TeacherSpec, mirror_output
from cdkd_ext.distillation.marginals import cut_marginals, log_normalized, peaks
from cdkd_ext.methods.heatmaps import heatmap_targets
from cdkd_ext.models import SimCCOutput, create_model


def test_peaks_are_the_first_highest_cells():
    maps = torch.zeros(1, 2, 3, 4)
    maps[0, 0, 2, 1] = maps[0, 0, 2, 3] = 0.7
    found = peaks(maps)
    assert (found.x.tolist(), found.y.tolist()) == ([[1, 0]], [[2, 0]])
    assert found.height[0].tolist() == pytest.approx([0.7, 0.0])


@pytest.mark.parametrize("cut", [None, 0, 2])
@pytest.mark.parametrize("sharpen", [1.0, 2.5])
def test_marginals_against_a_loop(cut, sharpen):
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    log_x, log_y = cut_marginals(maps, peaks(maps), cut=cut, sharpen=sharpen)
    assert (log_x.shape, log_y.shape) == ((2, 3, 7), (2, 3, 5))
    for b in range(2):
        for j in range(3):
            one = maps[b, j]
            y0, x0 = divmod(int(one.argmax()), 7)
            across, down = [0.0] * 7, [0.0] * 5
            for y in range(5):
                for x in range(7):
                    if cut is None or max(abs(y - y0), abs(x - x0)) <= cut:
                        across[x] += one[y, x].item() ** sharpen
                        down[y] += one[y, x].item() ** sharpen
            for values, found in ((across, log_x[b, j]), (down, log_y[b, j])):
                expected = [value / sum(values) for value in values]
                assert found.exp().tolist() == pytest.approx(expected, rel=1e-12)


def test_an_empty_map_is_uniform_and_tiny_values_do_not_vanish():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 1, 1, 2] = 1e-30
    log_x, _ = cut_marginals(maps, peaks(maps), cut=1, sharpen=3.0)
    assert log_x[0, 0].exp().tolist() == pytest.approx([0.25] * 4)
    assert log_x[0, 1].exp().tolist() == pytest.approx([0, 0, 1, 0])
    assert log_normalized(torch.zeros(3)).exp().tolist() == pytest.approx([1 / 3] * 3)


def maps_around(places: list[tuple[float, float]], size: tuple[int, int], stride: float) -> torch.Tensor:
    """Heatmaps (1, J, h, w) with Gaussians around places in pixels."""
    keypoints = torch.tensor([places])
    pixels = (round(size[0] * stride), round(size[1] * stride))
    ones = torch.ones(keypoints.shape[:2])
    return heatmap_targets(keypoints, ones, pixels, size, 2.0, quantized=False)[0]


def test_heatmaps_teach_their_marginals_and_how_sure_they_are():
    maps = 0.6 * maps_around([(20.0, 41.0), (33.3, 12.0)], (16, 24), 4.0)
    maps[0, 1] = -0.1
    taught = TeacherOutput.of(HeatmapOutput(maps))
    assert (taught.logits_x.shape, taught.logits_y.shape) == ((1, 2, 24), (1, 2, 16))
    for logits, place in ((taught.logits_x, 20 / 4), (taught.logits_y, 41 / 4)):
        shares = logits[0, 0].exp()
        assert shares.sum().item() == pytest.approx(1)
        # the cut, four cells on either side of the highest, is not centred on the place
        assert (shares * torch.arange(len(shares))).sum().item() == pytest.approx(place, abs=0.05)
    assert taught.confidence[0].tolist() == pytest.approx([0.6, 0.0], abs=0.03)
    # nothing is known where no cell is above zero
    assert taught.logits_x[0, 1].exp().tolist() == pytest.approx([1 / 24] * 24)
    assert taught.feature is maps


def test_halves_are_read_in_float32():
    maps = maps_around([(20.0, 41.0)], (16, 24), 4.0)
    half = TeacherOutput.of(HeatmapOutput(maps.bfloat16()))
    assert half.logits_x.dtype == half.confidence.dtype == torch.float32
    torch.testing.assert_close(
        half.logits_x.exp(), TeacherOutput.of(HeatmapOutput(maps)).logits_x.exp(), atol=3e-3, rtol=0
    )


def test_its_bins_are_its_cells():
    network = create_model("lowres_small", input_size=(64, 96), num_joints=5, head="heatmap")
    spec = TeacherSpec.of(network)
    height, width = network.feature_size
    assert spec.num_bins == (width, height) == (48, 32)
    assert spec.bin_origin == (0.0, 0.0) and spec.feature_mirrors
    for head in ("cal", "rle"):
        assert (
            TeacherSpec.of(
                create_model("hrnet_w8_small", input_size=(64, 64), num_joints=5, head=head)
            ).num_bins
            is None
        )


def spec_of(size: int, cells: int) -> TeacherSpec:
    return TeacherSpec(
        input_size=(size, size),
        num_joints=1,
        num_bins=(cells, cells),
        feature_channels=1,
        feature_size=(cells, cells),
        feature_mirrors=True,
    )


@pytest.mark.parametrize("place", [(6.0, 25.0), (17.25, 9.5), (24.6, 18.9)])
def test_a_student_with_heatmaps_is_led_to_where_the_teacher_is(place):
    """The teacher's maps (64 cells of 256 pixels) as a target of 16 cells of 32 pixels: the same place, a scale of 8 away."""
    teacher = TeacherOutput.of(HeatmapOutput(maps_around([(8 * place[0], 8 * place[1])], (64, 64), 4.0)))
    cca = HeatmapCCA(offset=spec_of(256, 64).offset((16, 16)))
    student = torch.zeros(1, 1, 16, 16, requires_grad=True)
    cca(HeatmapOutput(student), teacher, 1.0, teacher.confidence).backward()
    target = -student.grad / student.grad.abs().max()
    found, _ = decode_heatmaps(target, (32, 32), method="dark")
    # the merged map is narrow: a Gaussian of half a cell
    assert (found[0, 0] - torch.tensor(place)).abs().max().item() < 0.6


def test_a_student_with_classes_is_led_there_too():
    teacher = TeacherOutput.of(HeatmapOutput(maps_around([(100.0, 180.0)], (64, 64), 4.0)))
    cca = CCA(offset=spec_of(256, 64).offset((64, 64)))
    logits = [torch.zeros(1, 1, 64, requires_grad=True) for _ in range(2)]
    cca(SimCCOutput(torch.zeros(1), *logits), teacher, 1.0).backward()
    for axis, place in zip(logits, (100.0, 180.0), strict=True):
        merged = 1 / 64 - axis.grad[0, 0] / axis.grad.abs().sum() * (2 * (1 - 1 / 64))
        assert abs(int((-axis.grad).argmax()) - place / 4) <= 1 and merged.argmin() >= 0


def test_its_mirror_image_is_the_output_for_the_mirrored_crop():
    """A student's crop of 32 pixels: pixel x becomes 31 - x, and the teacher's of 64 pixels 62 - p."""
    places = [(20.0, 41.0), (33.4, 12.0)]
    mirrored = [(62.0 - x, y) for x, y in reversed(places)]
    own, other = (
        TeacherOutput.of(HeatmapOutput(maps_around(each, (32, 32), 2.0))) for each in (places, mirrored)
    )
    spec = TeacherSpec(
        input_size=(64, 64),
        num_joints=2,
        num_bins=(32, 32),
        feature_channels=2,
        feature_size=(32, 32),
        feature_mirrors=True,
    )
    turned = mirror_output(own, torch.tensor([True]), (1, 0), spec, 32)
    torch.testing.assert_close(turned.logits_x.exp(), other.logits_x.exp(), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.logits_y.exp(), other.logits_y.exp(), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.feature, other.feature, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.confidence, other.confidence)
