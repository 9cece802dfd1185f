"""A step of training that is replayed: what it leaves in the parameters; on a GPU, that it is the plain step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cdkd_ext.distillation import (
    CCA,
    ETHT,
    SAPE,
    AdversarialScalar,
    DistillationLoss,
    SimCCLoss,
    TeacherOutput,
)
from cdkd_ext.models import SimCCOutput, create_model
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationTask
from cdkd_ext.training.captured_step import CapturedStep

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Recorder:
    """Stands for CUDA graphs: a replay computes into the tensors that the capture made, as a graph does."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.captures = 0
        self.replays = 0

    def capture(self, function, *inputs):
        self.captures += 1
        outputs = function(*inputs)
        written = [parameter.grad for parameter in self.parameters]

        def replay(*given):
            self.replays += 1
            values = function(*given)
            for parameter, gradient in zip(self.parameters, written, strict=True):
                gradient.copy_(parameter.grad)
                parameter.grad = None
            return tuple(
                torch.empty_like(output).copy_(value) for output, value in zip(outputs, values, strict=True)
            )

        return replay


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 2, dtype=torch.float64)


def squares_of(layer, x):
    return layer(x).square().mean()


def squares(layer):
    def compute(x, scale):
        loss = squares_of(layer, x)
        loss = loss if scale is None else loss * scale
        loss.backward()
        return {"total": loss, "twice": 2 * loss}

    return compute


def recorded(layer):
    recorder = Recorder(layer.parameters())
    step = CapturedStep(squares(layer), layer.parameters(), capture=recorder.capture, on_gpu=lambda x: True)
    return step, recorder


def test_each_step_gives_its_own_losses_and_gradients(layer):
    step, recorder = recorded(layer)
    generator = torch.Generator().manual_seed(1)
    for number in range(7):
        x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        losses = step(x, None)
        expected = squares_of(layer, x)
        gradients = torch.autograd.grad(expected, list(layer.parameters()))
        assert losses["total"].item() == expected.item()
        assert losses["twice"].item() == 2 * expected.item()
        assert not losses["total"].requires_grad
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            assert torch.equal(parameter.grad, gradient)
            parameter.data -= 0.1 * parameter.grad
        assert recorder.captures == (number >= 3)
    assert recorder.replays == 4


def test_a_plain_step_in_between_takes_nothing_from_a_replay(layer):
    step, recorder = recorded(layer)
    x = torch.ones(4, 3, dtype=torch.float64)
    for _ in range(4):
        step(x, None)
    replayed = [parameter.grad for parameter in layer.parameters()]
    smaller = 5 * torch.ones(2, 3, dtype=torch.float64)
    step(smaller, None)
    expected = torch.autograd.grad(squares_of(layer, smaller), list(layer.parameters()))
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)
    step(x, None)
    for parameter, gradient in zip(layer.parameters(), replayed, strict=True):
        assert parameter.grad is gradient
    assert recorder.captures == 1


def test_an_input_that_is_missing_makes_another_step(layer):
    step, recorder = recorded(layer)
    x, scale = torch.ones(4, 3, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    for _ in range(4):
        alone = step(x, None)["total"]
        scaled = step(x, scale)["total"]
    assert recorder.captures == 2
    assert float(scaled) == 3 * float(alone)


def test_each_graph_keeps_the_names_of_its_own_losses(layer):
    plain = squares(layer)

    def compute(x, scale):
        losses = plain(x, scale)
        return losses if scale is None else {"total": losses["total"], "scale": scale}

    # a replay computes nothing in Python, so that only the step itself knows the names
    class Silent(Recorder):
        def capture(self, function, *inputs):
            self.captures += 1
            outputs = function(*inputs)
            return lambda *given: outputs

    recorder = Silent(layer.parameters())
    step = CapturedStep(compute, layer.parameters(), capture=recorder.capture, on_gpu=lambda x: True)
    x, scale = torch.ones(4, 3, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    for _ in range(6):
        assert list(step(x, None)) == ["total", "twice"]
        assert list(step(x, scale)) == ["total", "scale"]
    assert recorder.captures == 2


def test_off_a_gpu_steps_are_plain(layer):
    recorder = Recorder(layer.parameters())
    step = CapturedStep(squares(layer), layer.parameters(), capture=recorder.capture)
    for _ in range(6):
        step(torch.ones(4, 3, dtype=torch.float64), None)
    assert recorder.captures == 0


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_a_pass_at_the_end_is_moved_to_any_progress(progress):
    def loss():
        torch.manual_seed(0)
        return DistillationLoss(
            SimCCLoss(2.0),
            sape=SAPE(3, (4, 4), (8, 8), use_sau=False),
            cca=CCA("paper"),
            tau=ETHT(),
            alpha=AdversarialScalar.between_half_and_twice(2.0),
            beta=AdversarialScalar(0.5, 3.0, ramp=0.5),
        ).double()

    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    student = SimCCOutput(draw(2, 3, 4, 4), draw(2, 3, 32), draw(2, 3, 32))
    teacher = TeacherOutput(draw(2, 3, 8, 8), draw(2, 3, 64), draw(2, 3, 64))
    rest = (draw(2, 3, 2).abs(), torch.ones(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    there, moved = loss(), loss()
    expected = there(student, teacher, *rest, progress)
    expected["total"].backward()
    losses = moved(student, teacher, *rest, 1.0)
    losses["total"].backward()
    moved.move_to(progress, losses)
    assert {name: value.item() for name, value in losses.items()} == {
        name: value.item() for name, value in expected.items()
    }
    assert "xi" in losses
    for found, wanted in zip(moved.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-12, atol=0)
    assert len(moved.adversarial_parameters()) == 3


def gpu_step(task, mixed, capture):
    """A training step on a GPU as `cdkd distill` takes it, with the loss at progress 0.5."""
    optimizer = torch.optim.AdamW(task.parameter_groups(0.01), 1e-4, fused=True)

    def compute(images, keypoints, annotated, labelled, *taught):
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            losses = task(
                images,
                None,
                keypoints,
                annotated,
                labelled=labelled,
                progress=1.0,
                teacher_output=TeacherOutput(*taught),
            )
        losses["total"].backward()
        return losses

    step = CapturedStep(compute, task.parameters(), on_gpu=None if capture else lambda x: False)

    def run(images, teacher_images, *labels):
        losses = step(images, *labels, *task.ask_teacher(teacher_images))
        task.loss.move_to(0.5, losses)
        optimizer.step()
        return losses

    return run


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("adversarial", [False, True])
def test_on_a_gpu_replays_train_as_plain_steps_do_and_wait_for_nothing(mixed, adversarial, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    student, network = (
        create_model("hrnet_w8_small", input_size=(side, side), num_joints=17).cuda() for side in (32, 64)
    )
    teacher = FrozenTeacher(network)
    generator = torch.Generator().manual_seed(0)

    def draw(batch):
        images = [
            torch.randint(0, 256, (batch, 3, s, s), generator=generator, dtype=torch.uint8) for s in (32, 64)
        ]
        labels = 31 * torch.rand(batch, 17, 2, generator=generator), torch.ones(batch, 17), torch.ones(batch)
        return [x.cuda() for x in (*images, *labels)]

    batches = [draw(16) for _ in range(5)] + [draw(3)] + [draw(16) for _ in range(3)]
    results = []
    for capture in (False, True):
        torch.manual_seed(1)
        options = (
            {"tau": ETHT(), "beta": AdversarialScalar.between_half_and_twice(4.0)} if adversarial else {}
        )
        own = DistillationTask(copy.deepcopy(student), teacher, **options).cuda().train()
        run = gpu_step(own, mixed, capture)
        results.append(([run(*batch) for batch in batches], own.state_dict()))
    (plain, plain_state), (replayed, replayed_state) = results
    tolerance = 5e-2 if mixed else 1e-3
    for found, expected in zip(replayed, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(replayed_state, plain_state, rtol=tolerance, atol=tolerance)
    counts = [value for name, value in replayed_state.items() if name.endswith("num_batches_tracked")]
    assert counts and all(int(count) == len(batches) for count in counts)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(*batches[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
