"""Where a teacher's bins are, and what an output does."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.distillation import CCA, TeacherOutput, TeacherSpec
from cdkd_ext.errors import InputError
from cdkd_ext.models import SimCCOutput, create_model
from cdkd_ext.teachers import FrozenTeacher


def spec(**options):
    return TeacherSpec(input_size=(192, 256), num_joints=1, **options)


def test_the_offset_is_per_axis_in_teacher_bins():
    """With m bins per class, bin 0 at s classes: (m - 1) / 2 + s * m."""
    described = spec(num_bins=(128, 48), bin_origin=(0.5, 1.5))
    assert described.offset((64, 96)) == pytest.approx(
        (0.5 + 0.5 * 64 / 256 * 2, -0.25 + 1.5 * 96 / 192 * 0.5)
    )
    # without a shift it is the centred phase, and with as many bins nothing at all
    assert spec(num_bins=(192, 144)).offset((64, 48)) == (1.0, 1.0)
    assert spec(num_bins=(64, 48)).offset((64, 48)) == (0.0, 0.0)
    with pytest.raises(InputError, match="teacher: expected a teacher with distributions, got no bins"):
        spec().offset((64, 64))


@pytest.mark.parametrize("bins", [32, 48, 100])
def test_a_bin_is_merged_where_its_pixel_is(bins):
    """All of the teacher's mass in one bin: the student's middle class of the merged ones stands for the same pixel."""
    described = TeacherSpec(input_size=(64, 64), num_joints=1, num_bins=(bins, bins), bin_origin=(2.0, 2.0))
    cca = CCA(offset=described.offset((64, 64)))
    hot = torch.full((1, 1, bins), -torch.inf)
    hot[..., bins // 2] = 0
    student = torch.zeros(1, 1, 64, requires_grad=True)
    cca(
        SimCCOutput(torch.zeros(1), student, torch.zeros(1, 1, 64)), TeacherOutput(None, hot, hot), 1.0
    ).backward()
    # the gradient is softmax minus merged mass
    merged = 1 / 64 - student.grad[0, 0]
    middle = (merged * torch.arange(64)).sum().item()
    assert middle == pytest.approx(2.0 + bins // 2 * 64 / bins, abs=0.51 if bins > 64 else 1e-4)


def test_a_network_of_this_package_says_the_same_of_itself():
    network = create_model("hrnet_w8_small", input_size=(64, 96), num_joints=5, split_ratio=2.0)
    found = FrozenTeacher(network).teacher_spec
    assert (found.num_bins, found.bin_origin, found.feature_size) == ((192, 128), (0.0, 0.0), (16, 24))
    assert found == TeacherSpec.of(network)
    heatmaps = create_model("hrnet_w8_small", input_size=(64, 96), num_joints=5, head="heatmap")
    assert TeacherSpec.of(heatmaps).num_bins == (24, 16)


def test_an_output_without_parts_is_moved_and_widened():
    output = TeacherOutput(
        None, torch.zeros(1, 1, 2).half(), torch.zeros(1, 1, 2), torch.ones(1, 1).bfloat16()
    )
    moved = output.to("cpu").widened()
    assert moved.feature is None
    assert all(value.dtype == torch.float32 for value in moved[1:4]) and moved[4:] == (None, None)
