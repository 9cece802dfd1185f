"""The task in one's own loop: what it computes, what it trains, and what it refuses."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cdkd_ext.distillation import (
    CCA,
    ETHT,
    SAPE,
    AdversarialScalar,
    DistillationLoss,
    FullyConnectedClasses,
    FullyConnectedFeatures,
    HeatmapLoss,
    SimCCLoss,
    StridedConvolution,
    TeacherOutput,
)
from cdkd_ext.errors import InputError
from cdkd_ext.joints import JointSet
from cdkd_ext.models import create_model
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationTask
from cdkd_ext.training.config import (
    CCAConfig,
    DistillationConfig,
    SAPEConfig,
    TemperatureConfig,
    TrainingConfig,
)

JOINTS = 4


def network(side=32, **options):
    torch.manual_seed(side)
    options = {"input_size": (side, side), "num_joints": JOINTS, "split_ratio": 2.0} | options
    made = create_model("hrnet_w8_small", **options)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return made


def crops(side, count=4):
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def labels(count=4):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, JOINTS, 2, generator=generator) * 31, torch.ones(count, JOINTS)


def test_it_equals_the_losses_put_together_by_hand():
    student, teacher = network(), network(64)
    task = DistillationTask(student, copy.deepcopy(teacher), sape=SAPE.between(student, teacher))
    output, taught = copy.deepcopy(student).train()(crops(32)), teacher.eval()(crops(64))
    loss = DistillationLoss(SimCCLoss(2.0), sape=copy.deepcopy(task.loss.sape), cca=CCA())
    labelled = torch.tensor([1.0, 0.0, 1.0, 1.0])
    expected = loss(output, TeacherOutput(*taught), *labels(), labelled, 0.0)
    found = task(crops(32), crops(64), *labels(), labelled=labelled)
    assert found.keys() == expected.keys() >= {"total", "simcc", "sape", "cca"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_its_defaults_are_those_of_the_distill_command():
    student, teacher = network(), FrozenTeacher(network(64))
    config = DistillationConfig()
    configured = DistillationTask(
        student, teacher, label_loss=config.label_loss.build(student), **config.terms(student, teacher)
    )
    task = DistillationTask(student, teacher)
    batch = (crops(32), crops(64), *labels())
    found, expected = task(*batch), configured(*batch)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    assert (found["beta"], found["tau"]) == (4, 1) and "sape" not in found
    config.sape.enabled = True
    both = DistillationTask(student, teacher, **config.terms(student, teacher))(*batch)
    assert both["alpha"] == 2 and {"sape", "cca"} <= both.keys()
    assert TrainingConfig().terms(student, teacher) == {}


@pytest.mark.parametrize("feature", ["strided", "connected"])
def test_the_alternatives_of_the_distill_command_train_with_the_student(feature):
    student, teacher = network(), FrozenTeacher(network(64))
    config = DistillationConfig(
        sape=SAPEConfig(enabled=True, alignment=feature), cca=CCAConfig(alignment="connected")
    )
    terms = config.terms(student, teacher)
    task = DistillationTask(student, teacher, label_loss=config.label_loss.build(student), **terms)
    kinds = {"strided": StridedConvolution, "connected": FullyConnectedFeatures}
    assert type(task.loss.sape) is kinds[feature] and type(task.loss.cca) is FullyConnectedClasses
    task(crops(32), crops(64), *labels())["total"].backward()
    optimized = {id(value) for group in task.parameter_groups(0.1) for value in group["params"]}
    for value in (*task.loss.sape.parameters(), *task.loss.cca.parameters()):
        assert value.grad.abs().sum() > 0 and id(value) in optimized


@pytest.mark.parametrize(
    ("options", "learnt"),
    [
        ({}, [False, False, False]),
        ({"adversarial": True}, [False, False, True]),
        ({"adversarial": True, "learn_alpha": True}, [True, False, True]),
        ({"adversarial": True, "learn_weights": True}, [True, True, True]),
    ],
)
def test_what_the_distill_command_learns_against_the_loss(options, learnt):
    config = DistillationConfig(temperature=TemperatureConfig(**options))
    terms = config.terms(network(), FrozenTeacher(network(64)))
    assert [isinstance(terms[name], AdversarialScalar) for name in ("alpha", "beta", "tau")] == learnt


def test_all_that_is_learnt_against_the_loss_has_one_ramp():
    temperature = TemperatureConfig(adversarial=True, learn_weights=True, ramp=0.5)
    terms = DistillationConfig(temperature=temperature).terms(network(), FrozenTeacher(network(64)))
    strengths = [terms[name].xi(0.25) for name in ("alpha", "beta", "tau")]
    assert strengths == pytest.approx([0.5] * 3)
    with pytest.raises(InputError, match=r"sape\.weight: expected a positive number where it is learnt"):
        temperature.build_alpha(0.0)


def test_one_loop_trains_student_and_projectors_and_leaves_the_teacher():
    student, teacher = network(), network(64)
    before = copy.deepcopy(teacher.state_dict())
    task = DistillationTask(student, teacher)
    started = copy.deepcopy(dict(task.named_parameters()))
    optimizer = torch.optim.AdamW(task.parameters(), 2e-3)
    totals = []
    for _ in range(12):
        losses = task(crops(32), crops(64), *labels())
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(losses["total"].item())
    assert totals[-1] < 0.9 * totals[0]
    still = [name for name, value in task.named_parameters() if torch.equal(value, started[name])]
    assert still == []
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(value.requires_grad for value in teacher.parameters())


class Module(nn.Module):
    """Somebody else's teacher, which is a module with weights and describes itself in no way."""

    def __init__(self):
        super().__init__()
        self.network = network(64)
        self.asked = 0

    def forward(self, images):
        self.asked += 1
        assert not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        return TeacherOutput(*self.network(images))


@pytest.mark.parametrize("kind", ["network", "frozen", "module", "function"])
def test_any_teacher_is_asked_and_none_is_part_of_the_task(kind):
    student, teacher = network(), network(64)
    module = Module()
    module.network.load_state_dict(teacher.state_dict())
    given = {
        "network": copy.deepcopy(teacher),
        "frozen": FrozenTeacher(copy.deepcopy(teacher)),
        "module": module,
        "function": lambda images: TeacherOutput(*teacher.eval()(images)),
    }[kind]
    sape = SAPE.between(student, teacher)
    task = DistillationTask(student, given, sape=sape, cca=CCA()).train()
    assert {name.split(".")[0] for name in task.state_dict()} == {"student", "loss"}
    assert len(list(task.parameters())) == len([*student.parameters(), *sape.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        losses = task(crops(32), crops(64), *labels())
    stored = TeacherOutput(*(value.detach() for value in teacher.eval()(crops(64))))
    reference = DistillationTask(student, sape=sape, cca=CCA()).train()
    with torch.autocast("cpu", torch.bfloat16):
        expected = reference(crops(32), None, *labels(), teacher_output=stored)
    torch.testing.assert_close(losses["total"], expected["total"], rtol=1e-4, atol=1e-4)
    if kind == "module":
        assert module.asked == 1 and not module.training and not module.network.conv1.weight.requires_grad


def test_a_stored_output_equals_a_live_teacher():
    student, teacher = network(), FrozenTeacher(network(64))
    task = DistillationTask(student, teacher)
    live = task(crops(32), crops(64), *labels())
    stored = task(crops(32), None, *labels(), teacher_output=teacher(crops(64)))
    assert all(torch.equal(value, stored[name]) for name, value in live.items())


def test_without_a_teacher_it_is_plain_training():
    task = DistillationTask(network())
    losses = task(crops(32), None, *labels())
    assert losses.keys() == {"total", "simcc"}
    assert {name.split(".")[0] for name in task.state_dict()} == {"student"}
    with pytest.raises(InputError, match="teacher_images: expected None for a task without a teacher"):
        task(crops(32), crops(64), *labels())


def test_a_heatmap_pair_learns_by_cca_and_if_asked_by_sape():
    student, teacher = (network(side, head="heatmap") for side in (32, 64))
    losses = DistillationTask(student, teacher)(crops(32), crops(64), *labels())
    assert losses.keys() == {"total", "heatmap", "cca", "beta", "tau"} and losses["beta"] == 1
    task = DistillationTask(student, teacher, cca=None)
    assert isinstance(task.loss.label_loss, HeatmapLoss)
    losses = task(crops(32), crops(64), *labels())
    assert losses.keys() == {"total", "heatmap", "sape", "alpha"}
    # maps' losses are a thousandth of those of classes
    assert losses["alpha"] == pytest.approx(0.002) and SAPEConfig().alpha(student) == 0.002
    assert SAPEConfig().alpha(network()) == 2 and SAPEConfig(weight=0.5).alpha(student) == 0.5
    losses["total"].backward()
    assert task.loss.sape.projector_weight.grad.abs().sum() > 0


def test_a_copy_asks_the_same_teacher():
    class Session:
        def __deepcopy__(self, memo):
            raise TypeError("cannot be copied")

        def __call__(self, images):
            return frozen(images)

    frozen = FrozenTeacher(network(64))
    session = Session()
    session.teacher_spec = frozen.teacher_spec
    task = DistillationTask(network(), session)
    other = copy.deepcopy(task)
    batch = crops(32), crops(64), *labels()
    assert torch.equal(other(*batch)["total"], task(*batch)["total"])
    averaged = torch.optim.swa_utils.AveragedModel(task)
    assert averaged.module._teacher is task._teacher and averaged.module.student is not task.student


@pytest.mark.parametrize("without", ["sape", "cca"])
def test_what_no_term_uses_gets_no_gradient_and_waits_for_none(without):
    scalars = {"alpha": AdversarialScalar.between_half_and_twice(2.0), "tau": ETHT(1, 3)}
    other = SAPE.between(network(), network(64)) if without == "cca" else None
    task = DistillationTask(
        network(), network(64), sape=other, cca=None if without == "cca" else "auto", **scalars
    )
    task(crops(32), crops(64), *labels(), progress=0.5)["total"].backward()
    learnt = {name for name, value in task.named_parameters() if value.requires_grad}
    assert {name for name, value in task.named_parameters() if value.grad is None} == {
        name for name, _ in task.named_parameters()
    } - learnt
    unused = {"sape": {"loss.alpha.theta"}, "cca": {"loss.tau.theta"}}[without]
    assert {name for name, value in task.named_parameters() if not value.requires_grad} == unused


def test_networks_of_different_heads_learn_by_sape_and_of_different_channels_by_cca():
    mixed = DistillationTask(network(), network(64, head="cal"))
    assert mixed.loss.sape is not None and mixed.loss.cca is None
    assert DistillationTask(network(), network(64, head="heatmap")).loss.cca is not None
    wide = DistillationTask(network(channels_per_joint=2), network(64))
    assert wide.loss.sape is None and wide.loss.cca is not None


def test_parameters_are_in_one_group_each():
    task = DistillationTask(network(), network(64), tau=ETHT(1, 3))
    decayed, others = task.parameter_groups(0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(value.dim() > 1 for value in decayed["params"])
    assert all(value.dim() <= 1 for value in others["params"])
    theta = task.adversarial_parameters()
    listed = [*decayed["params"], *others["params"], *theta]
    assert len(theta) == 1 and sorted(map(id, listed)) == sorted(map(id, task.parameters()))


def test_progress_reaches_what_is_learnt_against_the_loss():
    task = DistillationTask(network(), network(64), tau=ETHT(1, 3))
    assert task(crops(32), crops(64), *labels())["xi"] == 0
    assert task(crops(32), crops(64), *labels(), progress=1.0)["xi"] == 1


def renamed():
    names = ("a", "b", "c", "d")
    return JointSet(names, tuple(range(4))), JointSet((*names[:3], "e"), tuple(range(4)))


MISFITS = {
    "number of joints": (
        lambda: (network(), network(64, num_joints=5)),
        "teacher: expected the student's 4, got 5",
    ),
    "names of joints": (
        lambda: (network(joints=renamed()[0]), network(64, joints=renamed()[1])),
        "teacher: expected the student's joints a, b, c, d, got the joints a, b, c, e",
    ),
    "aspect": (
        lambda: (network(), network(64, input_size=(64, 96))),
        r"teacher: expected the aspect ratio of the student's crops of \(32, 32\), got crops of \(64, 96\)",
    ),
    "nothing to learn by": (
        lambda: (network(head="rle"), network(64, channels_per_joint=2)),
        "teacher: expected a term that the student learns by, got neither SAPE",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_networks_that_do_not_fit_are_refused_in_one_sentence(misfit):
    make, message = MISFITS[misfit]
    with pytest.raises(InputError, match=message) as caught:
        DistillationTask(*make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"label_loss": HeatmapLoss((32, 32))},
            "label_loss: expected a SimCCLoss for a simcc head, got a Heatm",
        ),
        ({"label_loss": SimCCLoss(3.0)}, r"label_loss\.split_ratio: expected the student's 2\.0 bins"),
        ({"sape": SAPE(4, (4, 4), (16, 16))}, r"sape: expected one for the student's \(4, 8, 8\)"),
        ({"sape": SAPE(4, (8, 8), (32, 32))}, r"sape: expected one for the teacher's \(4, 16, 16\)"),
        ({"sape": None, "cca": None}, "teacher: expected a term that the student learns by"),
        ({"tau": 0.0}, "tau: expected a positive temperature"),
    ],
)
def test_terms_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        DistillationTask(network(), network(64), **options)


def test_what_a_head_of_heatmaps_refuses():
    with pytest.raises(
        InputError, match="cca: expected None: CCA aligns classes and heatmaps, got a CCA for a teacher"
    ):
        DistillationTask(network(), network(64, head="cal"), cca=CCA())
    loss = HeatmapLoss((64, 64))
    with pytest.raises(InputError, match=r"label_loss\.input_size: expected the student's \(32, 32\)"):
        DistillationTask(network(head="heatmap"), label_loss=loss)


def test_a_teacher_that_does_not_describe_itself_needs_its_terms_given():
    with pytest.raises(
        InputError, match="sape: expected a SAPE, or None, got 'auto' beside a teacher without"
    ):
        DistillationTask(network(), lambda images: None, cca=None)
    with pytest.raises(InputError, match="cca: expected a CCA, or None, got 'auto' beside a teacher without"):
        DistillationTask(network(), lambda images: None, sape=None)
    task = DistillationTask(network(), lambda images: images, sape=None, cca=CCA())
    with pytest.raises(
        TypeError, match="teacher: expected a callable that returns a TeacherOutput, got Tensor"
    ):
        task(crops(32), crops(64), *labels())


def test_wrong_types_and_calls():
    with pytest.raises(TypeError, match="student: expected a PoseNetwork, got Conv2d"):
        DistillationTask(nn.Conv2d(3, 3, 1))
    one = network()
    with pytest.raises(
        InputError, match="teacher: expected another network, such as a copy, got the student itself"
    ):
        DistillationTask(one, one)
    with pytest.raises(
        InputError, match=r"student: expected one to train, .* got a network whose parameters are all frozen"
    ):
        DistillationTask(one, FrozenTeacher(one))
    with pytest.raises(TypeError, match="teacher: expected a network, or a callable"):
        DistillationTask(network(), "runs/teacher", sape=None, cca=CCA())
    with pytest.raises(TypeError, match="sape: expected a SAPE, None or 'auto'"):
        DistillationTask(network(), network(64), sape=CCA())
    task = DistillationTask(network(), network(64))
    with pytest.raises(InputError, match="teacher: expected the teacher's outputs, got None"):
        task(crops(32), None, *labels())
    with pytest.raises(
        InputError, match="teacher_images: expected one of the two, got the teacher's crops beside"
    ):
        task(crops(32), crops(64), *labels(), teacher_output=TeacherOutput(torch.zeros(1)))
    with pytest.raises(InputError, match=r"keypoints: expected shape \(4, J, 2\)"):
        task(crops(32), crops(64), labels()[0][..., 0], labels()[1])


def test_it_needs_torch_and_numpy_alone():
    others = (
        "accelerate",
        "cv2",
        "jsonargparse",
        "matplotlib",
        "pycocotools",
        "rich",
        "safetensors",
        "scipy",
        "yaml",
    )
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({others!r}))\n"
        "from cdkd_ext.models import create_model\n"
        "from cdkd_ext.training import DistillationTask\n"
        "sizes = {'num_joints': 4, 'split_ratio': 2.0}\n"
        "made = [create_model('hrnet_w8_small', input_size=(n, n), **sizes) for n in (32, 64)]\n"
        "print(len(list(DistillationTask(*made).parameters())) > 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert (result.stdout, result.returncode) == ("True\n", 0), result.stderr
