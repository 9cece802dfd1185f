"""The total: what it adds up, what it trains, and that the released code's defects are absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cdkd_ext.distillation import (
    CCA,
    ETHT,
    SAPE,
    AdversarialScalar,
    DistillationLoss,
    SimCCLoss,
    TeacherOutput,
)
from cdkd_ext.errors import InputError

MakeOutputs = Callable[..., Any]


def make_loss(**options: Any) -> DistillationLoss:
    torch.manual_seed(0)
    terms = {"sape": SAPE(2, (2, 3), (4, 6)), "cca": CCA()} | options
    return DistillationLoss(SimCCLoss(2.0), **terms).double()


@pytest.fixture
def outputs(make_outputs: MakeOutputs) -> tuple[Any, Any]:
    torch.manual_seed(1)
    return make_outputs(bins=(12, 8)), make_outputs(size=(4, 6), bins=(24, 16))


def labels(batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    keypoints = torch.rand(batch, 2, 2, dtype=torch.float64) * 3
    return keypoints, torch.ones(batch, 2, dtype=torch.float64), torch.ones(batch, dtype=torch.float64)


def test_total_is_the_weighted_sum(outputs: tuple[Any, Any]) -> None:
    loss = make_loss(alpha=0.3, beta=0.7, tau=1.5).eval()
    student, teacher = outputs
    keypoints, annotated, labelled = labels()
    terms = loss(student, teacher, keypoints, annotated, labelled, 0.5)
    assert set(terms) == {"total", "simcc", "sape", "alpha", "cca", "beta", "tau"}
    assert loss.sape is not None
    assert loss.cca is not None
    torch.testing.assert_close(terms["simcc"], SimCCLoss(2.0)(student, keypoints, annotated))
    torch.testing.assert_close(terms["sape"], loss.sape(student.feature, teacher.feature))
    torch.testing.assert_close(terms["cca"], loss.cca(student, teacher, 1.5))
    expected = terms["simcc"] + 0.3 * terms["sape"] + 0.7 * terms["cca"]
    torch.testing.assert_close(terms["total"], expected)
    assert {name: terms[name].item() for name in ("alpha", "beta", "tau")} == {
        "alpha": 0.3,
        "beta": 0.7,
        "tau": 1.5,
    }


def test_defaults_are_what_helped() -> None:
    loss = make_loss()
    assert (loss.alpha, loss.beta, loss.tau) == (2.0, 4.0, 1.0)
    assert loss.sape is not None
    assert (loss.sape.activation, loss.sape.center_teacher) == ("none", True)


def test_plain_training(outputs: tuple[Any, Any]) -> None:
    loss = DistillationLoss(SimCCLoss(2.0))
    terms = loss(outputs[0], None, *labels(), 0.0)
    assert set(terms) == {"total", "simcc"}
    assert loss.projector_parameters() == loss.adversarial_parameters() == []


@pytest.mark.parametrize("term", ["sape", "cca"])
def test_each_distillation_term_alone_reaches_the_student_and_never_the_teacher(
    outputs: tuple[Any, Any], term: str
) -> None:
    student, teacher = outputs
    loss = make_loss(**{{"sape": "cca", "cca": "sape"}[term]: None})
    loss(student, teacher, *labels(), 0.5)[term].backward()
    reached = [student.feature] if term == "sape" else [student.logits_x, student.logits_y]
    assert all(tensor.grad.abs().sum() > 0 for tensor in reached)
    assert all(tensor.grad is None for tensor in teacher)


def test_every_trainable_part_is_listed_and_gets_a_gradient(outputs: tuple[Any, Any]) -> None:
    weights = [AdversarialScalar.between_half_and_twice(value) for value in (2.0, 4.0)]
    loss = make_loss(tau=ETHT(1, 3), alpha=weights[0], beta=weights[1])
    listed = loss.adversarial_parameters() + loss.projector_parameters()
    assert {id(p) for p in listed} == {id(p) for p in loss.parameters()}
    assert len(listed) == len(list(loss.parameters()))
    assert len(loss.adversarial_parameters()) == 3
    loss(*outputs, *labels(), 0.5)["total"].backward()
    assert [name for name, p in loss.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_parameters_without_effect_are_not_listed() -> None:
    scalar = AdversarialScalar.between_half_and_twice(2.0)
    loss = DistillationLoss(SimCCLoss(2.0), sape=SAPE(2, (2, 3), (4, 6)), alpha=1.0, beta=scalar, tau=ETHT())
    assert loss.adversarial_parameters() == []


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("sharpened", [True, False])
def test_theta_climbs_the_whole_loss(outputs: tuple[Any, Any], progress: float, sharpened: bool) -> None:
    """One SGD step is θ + ξ·lr·∂L/∂θ, upwards and downwards, with ∂L/∂θ by finite differences."""
    student, teacher = outputs
    if sharpened:  # a teacher equal to the student's shape but sharper loses weight as τ grows
        teacher = teacher._replace(
            logits_x=student.logits_x.repeat_interleave(2, -1) * 12,
            logits_y=student.logits_y.repeat_interleave(2, -1) * 12,
        )
        student = student._replace(logits_x=student.logits_x * 10, logits_y=student.logits_y * 10)
    loss = make_loss(tau=ETHT(0.5, 3.0, theta=0.2), sape=None)
    rest = (student, teacher, *labels(), progress)
    theta = loss.adversarial_parameters()[0]
    start, rate, step = theta.item(), 0.01, 1e-5

    def value(at: float) -> float:
        theta.data.fill_(at)
        return loss(*rest)["total"].item()

    gradient = (value(start + step) - value(start - step)) / (2 * step)
    theta.data.fill_(start)
    optimizer = torch.optim.SGD([theta], rate)
    terms = loss(*rest)
    terms["total"].backward()
    optimizer.step()
    assert theta.item() - start == pytest.approx(terms["xi"].item() * rate * gradient, rel=1e-5, abs=1e-12)


def test_learnt_weights_climb_within_their_bounds(outputs: tuple[Any, Any]) -> None:
    alpha, beta = (AdversarialScalar.between_half_and_twice(value) for value in (2.0, 4.0))
    loss = make_loss(alpha=alpha, beta=beta)
    optimizer = torch.optim.SGD(loss.adversarial_parameters(), 1e4)
    rest = labels()
    before = loss(*outputs, *rest, 1.0)
    assert (before["alpha"].item(), before["beta"].item()) == pytest.approx((2.0, 4.0))
    before["total"].backward()
    optimizer.step()
    after = loss(*outputs, *rest, 1.0)
    assert (after["alpha"].item(), after["beta"].item()) == pytest.approx((4.0, 8.0))


def test_unlabelled_samples_have_no_label_loss_but_are_distilled(outputs: tuple[Any, Any]) -> None:
    student, teacher = outputs
    keypoints, annotated, labelled = labels()
    labelled[1] = 0
    keypoints[1] = torch.nan
    loss = make_loss()
    terms = loss(student, teacher, keypoints, annotated, labelled, 0.0)
    (gradient,) = torch.autograd.grad(terms["simcc"], student.logits_x, retain_graph=True)
    assert gradient[1].abs().sum() == 0
    assert gradient[0].abs().sum() > 0
    (gradient,) = torch.autograd.grad(terms["total"], student.logits_x)
    assert gradient[1].abs().sum() > 0
    assert gradient.isfinite().all()


def test_a_batch_without_any_label(outputs: tuple[Any, Any]) -> None:
    keypoints, annotated, labelled = labels()
    terms = make_loss()(*outputs, keypoints, annotated, labelled * 0, 0.0)
    assert terms["simcc"].item() == 0
    assert terms["total"].isfinite()


def test_annotated_weights_spare_unlabelled_samples(outputs: tuple[Any, Any]) -> None:
    keypoints, annotated, labelled = labels()
    annotated[:, 0] = 0
    labelled[2] = 0
    student, teacher = outputs
    loss = make_loss(sape=None, annotated_weights=True)
    (gradient,) = torch.autograd.grad(
        loss(student, teacher, keypoints, annotated, labelled, 0.0)["cca"], student.logits_x
    )
    assert (gradient.abs().sum(-1) > 0).tolist() == [[False, True], [False, True], [True, True]]
    (gradient,) = torch.autograd.grad(
        make_loss(sape=None)(student, teacher, keypoints, annotated, labelled, 0.0)["cca"], student.logits_x
    )
    assert (gradient.abs().sum(-1) > 0).all()


def test_joints_count_as_the_teacher_is_sure_of_them(outputs: tuple[Any, Any]) -> None:
    keypoints, annotated, labelled = labels()
    annotated[0, 0] = 0
    student, teacher = outputs
    confidence = torch.tensor([[0.5, 1.0], [0.0, 0.25], [1.0, 0.0]], dtype=torch.float64)
    said = TeacherOutput(*teacher, confidence)
    rest = (keypoints, annotated, labelled, 0.0)
    found = make_loss(sape=None)(student, said, *rest)["cca"]
    torch.testing.assert_close(found, CCA()(student, teacher, 1.0, confidence))
    (gradient,) = torch.autograd.grad(found, student.logits_y)
    assert torch.equal(gradient.abs().sum(-1) > 0, confidence > 0)
    both = make_loss(sape=None, annotated_weights=True)(student, said, *rest)["cca"]
    torch.testing.assert_close(both, CCA()(student, teacher, 1.0, confidence * annotated))
    with pytest.raises(InputError, match=r"teacher\.confidence: expected weights of at least 0"):
        make_loss(sape=None)(student, said._replace(confidence=-confidence), *rest)
    with pytest.raises(InputError, match=r"teacher\.feature: expected a feature map for SAPE, got None"):
        make_loss()(student, said._replace(feature=None), *rest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision(make_outputs: MakeOutputs, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    student = make_outputs(dtype=dtype)
    teacher = make_outputs(size=(4, 6), bins=(24, 16), dtype=dtype)
    loss = make_loss(tau=ETHT(1, 3)).float().eval()
    rest = [tensor.float() for tensor in labels()]
    with torch.autocast("cpu", dtype):
        terms = loss(student, teacher, *rest, 0.5)
    exact = loss(*(type(x)(*(t.float() for t in x)) for x in (student, teacher)), *rest, 0.5)
    for name, value in terms.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, exact[name], msg=name)
    terms["total"].backward()
    gradients = [student.feature.grad, student.logits_x.grad, *(p.grad for p in loss.parameters())]
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


def test_a_halved_module_keeps_theta_and_runs(make_outputs: MakeOutputs) -> None:
    loss = make_loss(tau=ETHT(1, 3)).bfloat16()
    assert loss.adversarial_parameters()[0].dtype in (torch.float32, torch.float64)
    student = make_outputs(dtype=torch.bfloat16)
    teacher = make_outputs(size=(4, 6), bins=(24, 16), dtype=torch.bfloat16)
    assert loss(student, teacher, *(tensor.float() for tensor in labels()), 0.5)["total"].isfinite()


def test_refusals(outputs: tuple[Any, Any]) -> None:
    student, teacher = outputs
    keypoints, annotated, labelled = labels()
    loss = make_loss()
    with pytest.raises(InputError, match="teacher: expected the teacher's outputs, got None"):
        loss(student, None, keypoints, annotated, labelled, 0.0)
    with pytest.raises(InputError, match=r"annotated: expected shape \(3, 2\)"):
        loss(student, teacher, keypoints, annotated[:, :1], labelled, 0.0)
    with pytest.raises(InputError, match="labelled: expected weights of at least 0"):
        loss(student, teacher, keypoints, annotated, -labelled, 0.0)
    with pytest.raises(InputError, match=r"keypoints: expected shape \(3, J, 2\)"):
        loss(student, teacher, keypoints[..., 0], annotated, labelled, 0.0)
    empty = type(student)(*(tensor[:0] for tensor in student))
    with pytest.raises(InputError, match="student: expected at least one sample"):
        loss(empty, teacher, keypoints[:0], annotated[:0], labelled[:0], 0.0)
    for options, message in (
        ({"tau": 0.0}, "tau: expected a positive temperature"),
        ({"alpha": -1.0}, "alpha: expected a finite number of at least 0"),
        ({"beta": float("nan")}, "beta: expected a finite number of at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            make_loss(**options)
    with pytest.raises(TypeError, match="tau: expected a number or an ETHT"):
        make_loss(tau=AdversarialScalar(0.5, 2.0))
