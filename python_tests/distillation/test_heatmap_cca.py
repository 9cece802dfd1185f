"""CCA for heatmaps: targets against loops in float64, geometry, weights, and what fits beside what."""

import math

import pytest
import torch

from cdkd_ext.codecs import HeatmapOutput, SimCCOutput
from cdkd_ext.distillation import (
    CCA,
    ETHT,
    DistillationLoss,
    HeatmapCCA,
    HeatmapLoss,
    SimCCLoss,
    TeacherOutput,
    TeacherSpec,
)
from cdkd_ext.errors import InputError


def outputs(bins: int = 24, cells: tuple[int, int] = (6, 8)) -> tuple[HeatmapOutput, TeacherOutput]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    maps = draw(2, 3, *cells)
    return HeatmapOutput(maps), TeacherOutput(None, draw(2, 3, bins), draw(2, 3, bins))


def merged(logits: torch.Tensor, cells: int, offset: float, tau: float) -> list[float]:
    """Mass of each cell, bin by bin."""
    powers = [math.exp(value / tau) for value in logits.tolist()]
    ratio = len(powers) / cells
    result = []
    for cell in range(cells):
        low = 0 if cell == 0 else cell * ratio - offset
        high = len(powers) if cell == cells - 1 else (cell + 1) * ratio - offset
        overlaps = [max(0.0, min(i + 1, high) - max(i, low)) for i in range(len(powers))]
        result.append(sum(o * p for o, p in zip(overlaps, powers, strict=True)))
    return [value / max(result) for value in result]


def test_what_was_made_in_inference_serves_training() -> None:
    student, teacher = outputs()
    term = HeatmapCCA("centered")
    with torch.inference_mode():
        expected = term(student, teacher, 1.0).item()
    tau = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    maps = student.feature.clone().requires_grad_()
    found = term(HeatmapOutput(maps), teacher, tau)
    found.backward()
    assert found.item() == pytest.approx(expected) and tau.grad.abs() > 0


@pytest.mark.parametrize("detached", [False, True])
def test_no_factor_of_tau_is_kept_out_of_the_gradient_of_a_temperature(detached: bool) -> None:
    """There is none: θ climbs along dL/dτ, which a difference quotient gives."""
    student, teacher = outputs()
    etht = ETHT(1.0, 4.0, detach_scale=detached).double()
    loss = DistillationLoss(HeatmapLoss((24, 32)), cca=HeatmapCCA("centered"), tau=etht)
    nothing = torch.zeros(2, 3, 2, dtype=torch.float64), torch.zeros(2, 3), torch.zeros(2)

    def total() -> torch.Tensor:
        return loss(student, teacher, *nothing, progress=1.0)["total"]

    total().backward()
    slope = etht.theta.grad.item()
    start, step = etht.theta.item(), 1e-4
    values = []
    for place in (start + step, start - step):
        etht.theta.data.fill_(place)
        values.append(total().item())
    assert -slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_equals_a_loop_over_joints_and_cells(tau: float) -> None:
    student, teacher = outputs()
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.25, 1.0, 2.0]], dtype=torch.float64)
    total = 0.0
    for b in range(2):
        for j in range(3):
            columns = merged(teacher.logits_x[b, j], 8, 0.7, tau)
            rows = merged(teacher.logits_y[b, j], 6, -0.4, tau)
            for y in range(6):
                for x in range(8):
                    gap = student.feature[b, j, y, x].item() - rows[y] * columns[x]
                    total += 0.5 * (gap * weights[b, j].item()) ** 2
    loss = HeatmapCCA(offset=(0.7, -0.4))(student, teacher, tau, weights)
    assert loss.item() == pytest.approx(total / (2 * 3 * 6 * 8), rel=1e-12)


def test_probabilities_stand_for_their_logarithms() -> None:
    student, teacher = outputs()
    shares = TeacherOutput(None, teacher.logits_x.exp() * 3, teacher.logits_y.exp())
    expected = HeatmapCCA("centered")(student, teacher, 1.5)
    got = HeatmapCCA("centered")(student, shares, 1.5, probabilities=True)
    torch.testing.assert_close(got, expected)


def test_gradients_reach_the_maps_and_the_temperature_and_not_the_teacher() -> None:
    student, teacher = outputs(bins=16)
    maps = student.feature.requires_grad_()
    tau = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    logits = teacher.logits_x.requires_grad_()
    term = HeatmapCCA("centered")
    assert torch.autograd.gradcheck(lambda m, t: term(HeatmapOutput(m), teacher, t), (maps, tau))
    term(HeatmapOutput(maps), teacher, tau).backward()
    assert logits.grad is None


@pytest.mark.parametrize("probabilities", [False, True])
def test_classes_without_probability_leave_the_temperature_its_gradient(probabilities: bool) -> None:
    """A foreign teacher's marginals are cut around their peak: minus infinity elsewhere."""
    student, teacher = outputs(bins=16)
    cut = teacher.logits_x.clone()
    cut[..., :5] = cut[..., 9:] = -math.inf
    small = cut.clone().clamp(min=-200)
    gradients, values = [], []
    for rows in (cut, small):
        tau = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        given = TeacherOutput(
            None, rows.exp() if probabilities else rows, rows.exp() if probabilities else rows
        )
        result = HeatmapCCA("centered")(student, given, tau, probabilities=probabilities)
        gradients.append(torch.autograd.grad(result, tau)[0])
        values.append(result.detach())
    assert gradients[0].isfinite() and gradients[0] != 0
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(values[0], values[1])


@pytest.mark.parametrize("bins", [16, 64, 50, 256])
def test_the_target_of_a_sharp_teacher_lies_on_the_cell_that_stands_for_its_pixel(bins: int) -> None:
    # 16 cells of 2 pixels; a teacher of 128 pixels; the joint at pixel 12 of the student, 48 of the teacher
    spec = TeacherSpec(input_size=(128, 128), num_joints=1, num_bins=(bins, bins))
    place = torch.arange(bins, dtype=torch.float64) * 128 / bins
    logits = (-0.5 * ((place - 48) / 8) ** 2).expand(1, 1, bins)
    term = HeatmapCCA(offset=spec.offset((16, 16)))
    maps = torch.zeros(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    term(HeatmapOutput(maps), TeacherOutput(None, logits, logits), 1.0).backward()
    target = -maps.grad[0, 0] * 16 * 16
    assert target.max().item() == pytest.approx(1)
    columns = target.sum(0)
    center = (columns * torch.arange(16)).sum() / columns.sum()
    assert center.item() == pytest.approx(6, abs=0.02)


def test_equals_the_loss_from_labels_for_gaussians_on_cells() -> None:
    maps = torch.rand(1, 2, 16, 16, dtype=torch.float64)
    keypoints = torch.tensor([[[8.0, 20.0], [26.0, 4.0]]], dtype=torch.float64)
    cells = torch.arange(16, dtype=torch.float64)
    logits = -0.5 * (cells - keypoints[..., None] / 2) ** 2
    teacher = TeacherOutput(None, logits[:, :, 0], logits[:, :, 1])
    weights = torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    expected = HeatmapLoss((32, 32), quantized=False)(HeatmapOutput(maps), keypoints, weights)
    torch.testing.assert_close(HeatmapCCA()(HeatmapOutput(maps), teacher, 1.0, weights), expected)


def test_a_joint_of_no_weight_changes_nothing() -> None:
    student, teacher = outputs()
    weights = torch.ones(2, 3, dtype=torch.float64)
    weights[1, 2] = 0
    other = teacher._replace(logits_x=teacher.logits_x.clone())
    other.logits_x[1, 2] += torch.arange(24)
    term = HeatmapCCA()
    assert term(student, teacher, 1.0, weights) == term(student, other, 1.0, weights)
    assert term(student, teacher, 1.0) != term(student, other, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("probabilities", [False, True])
def test_what_a_joint_of_no_weight_holds_is_not_looked_at(value: float, probabilities: bool) -> None:
    student, teacher = outputs()
    maps = student.feature.requires_grad_()
    tau = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    weights = torch.ones(2, 3, dtype=torch.float64)
    weights[1, 2] = 0
    rows = [logits.exp() if probabilities else logits.clone() for logits in teacher[1:3]]
    broken = [row.clone() for row in rows]
    broken[0][1, 2] = value
    term = HeatmapCCA()
    results = [
        term(HeatmapOutput(maps), TeacherOutput(None, *pair), tau, weights, probabilities=probabilities)
        for pair in (rows, broken)
    ]
    assert results[0] == results[1]
    gradients = [torch.autograd.grad(result, (maps, tau)) for result in results]
    for expected, got in zip(*gradients, strict=True):
        assert torch.equal(got, expected)


def test_half_precision_is_widened() -> None:
    student, teacher = outputs()
    low = TeacherOutput(None, *(logits.bfloat16() for logits in teacher[1:3]))
    assert HeatmapCCA()(student, low, 1.0).dtype == torch.float64
    assert HeatmapCCA()(HeatmapOutput(student.feature.bfloat16()), low, 1.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits_x": None}, "teacher.logits_x: expected distributions, which are merged to cells, got None"),
        ({"logits_y": torch.zeros(2, 4, 24)}, "teacher.logits_y"),
    ],
)
def test_refuses_what_does_not_fit(change: dict, message: str) -> None:
    student, teacher = outputs()
    with pytest.raises(InputError, match=message):
        HeatmapCCA()(student, teacher._replace(**change), 1.0)


def test_refuses_weights_of_another_shape() -> None:
    student, teacher = outputs()
    with pytest.raises(InputError, match="weights"):
        HeatmapCCA()(student, teacher, 1.0, torch.ones(2, 2))


def test_each_cca_belongs_beside_labels_of_its_own_kind() -> None:
    with pytest.raises(InputError, match="cca: expected a CCA beside simcc labels, got a HeatmapCCA"):
        DistillationLoss(SimCCLoss(2.0), cca=HeatmapCCA())
    with pytest.raises(InputError, match="cca: expected a HeatmapCCA beside heatmap labels, got a CCA"):
        DistillationLoss(HeatmapLoss((32, 32)), cca=CCA())


def test_the_weight_is_that_of_the_kind_unless_told() -> None:
    assert DistillationLoss(SimCCLoss(2.0), cca=CCA()).beta == 4
    assert DistillationLoss(HeatmapLoss((32, 32)), cca=HeatmapCCA()).beta == 1
    assert DistillationLoss(HeatmapLoss((32, 32)), cca=HeatmapCCA(), beta=0.0).beta == 0


def test_confidence_weighs_the_term_in_the_whole_loss() -> None:
    student, teacher = outputs()
    confidence = torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 0.7]], dtype=torch.float64)
    loss = DistillationLoss(HeatmapLoss((12, 16)), cca=HeatmapCCA())
    terms = loss(
        student,
        teacher._replace(confidence=confidence),
        torch.zeros(2, 3, 2, dtype=torch.float64),
        torch.ones(2, 3, dtype=torch.float64),
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        0.0,
    )
    torch.testing.assert_close(terms["cca"], HeatmapCCA()(student, teacher, 1.0, confidence))
    torch.testing.assert_close(terms["total"], terms["heatmap"] + terms["cca"])


def test_cca_itself_still_wants_classes() -> None:
    student, teacher = outputs()
    with pytest.raises(InputError, match="student: expected SimCC logits"):
        CCA()(student, teacher, 1.0)
    simcc = SimCCOutput(student.feature, *(torch.zeros(2, 3, 8) for _ in range(2)))
    with pytest.raises(InputError, match=r"teacher: expected SimCC logits.*got heatmaps"):
        CCA()(simcc, TeacherOutput(student.feature), 1.0)
