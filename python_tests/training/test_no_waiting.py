"""A training step asks a GPU for nothing: shown without one on the device "meta", and on one where there is one."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from cdkd_ext.distillation import CCA, ETHT, SAPE, AdversarialScalar, HeatmapLoss, SimCCLoss
from cdkd_ext.models import create_model
from cdkd_ext.training import DistillationTask

GAUSSIAN, HARD = SimCCLoss(2.0), SimCCLoss(2.0, kind="hard", label_smoothing=0.1)


def networks(head):
    return [
        create_model("hrnet_w8_small", input_size=(side, side), num_joints=17, head=head, split_ratio=2.0)
        for side in (32, 64)
    ]


def make_task(head="simcc", **options):
    student, teacher = networks(head)
    return DistillationTask(student, teacher, **options)


TASKS = {
    "defaults": dict,
    "hard labels": lambda: {"label_loss": HARD, "annotated_weights": True},
    "as printed": lambda: {
        "label_loss": GAUSSIAN,
        "sape": SAPE(17, (8, 8), (16, 16), activation="relu", center_teacher=False),
        "cca": CCA("centered"),
        "tau": ETHT(detach_scale=True),
        "alpha": AdversarialScalar.between_half_and_twice(2.0),
        "beta": AdversarialScalar.between_half_and_twice(4.0),
    },
    "averaged projectors": lambda: {"sape": SAPE(17, (8, 8), (16, 16), use_sau=False)},
    "heatmaps": lambda: {"head": "heatmap"},
    "heatmaps of DARK": lambda: {"head": "heatmap", "label_loss": HeatmapLoss((32, 32), quantized=False)},
}


def batch(device):
    def image(side):
        return torch.zeros(4, 3, side, side, dtype=torch.uint8, device=device)

    points = torch.ones(4, 17, 2, device=device)
    return image(32), image(64), points, torch.ones(4, 17, device=device), torch.ones(4, device=device)


def step(task, images, teacher_images, keypoints, annotated, labelled):
    losses = task(images, teacher_images, keypoints, annotated, labelled=labelled, progress=0.5)
    losses["total"].backward()
    return losses


@pytest.mark.parametrize("options", TASKS.values(), ids=TASKS)
def test_the_host_reads_nothing(options, no_host_reads, monkeypatch):
    # there is none for "meta"
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    given = options()
    student, teacher = (network.to("meta") for network in networks(given.pop("head", "simcc")))
    task = DistillationTask(student, teacher, **given).to("meta").train()
    assert task.loss.label_loss.replayable
    with no_host_reads():
        losses = step(task, *batch("meta"))
    assert all(value.device.type == "meta" for value in losses.values())
    assert all(parameter.grad is not None for parameter in task.student.parameters())


def test_what_would_wait_is_found(no_host_reads):
    value = torch.zeros((), device="meta")
    waits = (
        lambda: value.item(),
        lambda: float(value),
        lambda: bool(value > 0),
        lambda: torch.tensor([1.0], device="meta"),
        lambda: value.new_tensor(2.0),
        lambda: value.to("cpu"),
        lambda: torch.zeros(3, device="meta").nonzero(),
    )
    for wait in waits:
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), no_host_reads():
            wait()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("options", TASKS.values(), ids=TASKS)
def test_a_step_on_a_gpu_does_not_wait(options, mixed):
    given = options()
    student, teacher = (network.cuda() for network in networks(given.pop("head", "simcc")))
    task = DistillationTask(student, teacher, **given).cuda().train()
    optimizer = torch.optim.AdamW(task.parameter_groups(0.01), 1e-4, fused=True)
    inputs = batch("cuda")

    def train():
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            losses = task(*inputs[:4], labelled=inputs[4], progress=0.5)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()

    # the teacher's graph is captured in the second step
    for _ in range(3):
        train()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_stored_outputs_travel_in_16_bits_and_train_as_in_32():
    from cdkd_ext.distillation import TeacherOutput

    student, teacher = networks("simcc")
    task = DistillationTask(student, teacher).eval()
    small, large, points, annotated, _ = batch("cpu")
    with torch.no_grad():
        stored = TeacherOutput(*(value.half() for value in teacher(large)))
        losses = [
            task(small, None, points, annotated, teacher_output=output)["total"]
            for output in (stored, stored.widened())
        ]
    assert stored.widened().feature.dtype == torch.float32
    assert torch.equal(*losses)
