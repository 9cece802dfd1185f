"""One whole distillation step: HRNet-W32 on 256 × 256 teaches HRNet-W32 on 64 × 64 or 32 × 32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import profile, record_function

from bench.case import EAGER, OURS, Bench, Call, Case, Setup, repeated, total_bytes
from bench.run import main
from cdkd_ext import ops
from cdkd_ext.distill import DistillationLoss, SimCCLoss, recommended_loss
from cdkd_ext.models import HeatmapOutput, PoseNetwork, SimCCOutput, create_model, normalize_images
from cdkd_ext.ops import reference
from cdkd_ext.teachers.frozen import FrozenTeacher
from cdkd_ext.training.task import PoseTask

LIVE = "live teacher"
STORED = "stored teacher"
PLAIN = "plain training"
FLOAT32 = f"{OURS}, float32 teacher"
MIXED = f"{OURS}, bfloat16 student"

STUDENT_64 = {"batch": 16, "teacher": 256, "student": 64, "bins per pixel": 3, "width": 32}
STUDENT_32 = {"batch": 16, "teacher": 256, "student": 32, "bins per pixel": 2, "width": 32}
NETWORKS = {8: "hrnet_w8_small", 32: "hrnet_w32"}
JOINTS = 16
OPERATORS = 12  # that a profile lists

Batch = Mapping[str, Tensor]
Losses = dict[str, Tensor]


def prepare(case: Case, device: torch.device) -> Setup:
    """A teacher, and a student of its own with the same weights for every competitor."""
    sizes = case.sizes
    batch = draw_batch(sizes, device)
    teacher = network(sizes, "teacher", batch["teacher_image"])
    student = network(sizes, "student", batch["image"])
    ratio = float(sizes["bins per pixel"])
    loss = recommended_loss(SimCCLoss(ratio), JOINTS, student.feature_size, teacher.feature_size).to(device)
    fast_teacher = FrozenTeacher(copy.deepcopy(teacher), device, "auto")

    def task(loss: DistillationLoss = loss) -> PoseTask:
        return PoseTask(copy.deepcopy(student), copy.deepcopy(loss))

    calls: dict[str, Call] = {}
    if case.variant == LIVE:
        calls[OURS] = ours(task(), batch, fast_teacher)
        if fast_teacher.precision != "float32":
            calls[FLOAT32] = ours(task(), batch, FrozenTeacher(copy.deepcopy(teacher), device, "float32"))
        profiled = profiled_step(task(), batch, fast_teacher)
        floor = {"teacher forward": repeated(lambda: fast_teacher(batch["teacher_image"]))}
    else:
        batch = {**batch, **stored(fast_teacher(batch["teacher_image"]))}
        calls[OURS] = ours(task(), batch)
        calls[MIXED] = ours(task(), batch, mixed=True)
        profiled = profiled_step(task(), batch)
        floor = {}
    calls[EAGER] = eager(copy.deepcopy(student), copy.deepcopy(loss), teacher, batch)
    plain = {name: batch[name] for name in ("image", "keypoints", "annotated", "labelled")}
    return Setup(
        calls=calls,
        # of bfloat16, in the teacher or in both; float32 alone agrees a thousand times better
        tolerance=2e-2 if case.variant == LIVE else 5e-2,
        input_bytes=total_bytes(*batch.values()),
        floor={**floor, "student forward and backward": repeated(student_alone(task(), batch))},
        context={PLAIN: repeated(ours(task(DistillationLoss(SimCCLoss(ratio))), plain))},
        profile=profiled,
    )


def draw_batch(sizes: Mapping[str, int], device: torch.device) -> Batch:
    """Random images of both sizes, joints, and labels for all of them."""
    count, side = sizes["batch"], sizes["student"]

    def image(size: int) -> Tensor:
        return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, device=device)

    return {
        "image": image(side),
        "teacher_image": image(sizes["teacher"]),
        "keypoints": torch.rand(count, JOINTS, 2, device=device) * (side - 1),
        "annotated": torch.ones(count, JOINTS, device=device),
        "labelled": torch.ones(count, device=device),
    }


def network(sizes: Mapping[str, int], which: str, images: Tensor) -> PoseNetwork:
    """Weights that keep the scale of what they read, and statistics of real maps, as trained networks have."""
    side = sizes[which]
    made = create_model(
        NETWORKS[sizes["width"]],
        input_size=(side, side),
        num_joints=JOINTS,
        split_ratio=float(sizes["bins per pixel"]),
    ).to(images.device)
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    for norm in norms:
        # at 1, the residual branches of a network this deep would amplify every rounding error
        nn.init.uniform_(norm.weight, 0.2, 0.6)
        norm.momentum = 1.0
    with torch.no_grad():
        made.train()(normalize_images(images[:4]))
    for norm in norms:
        norm.momentum = 0.1
    return made


def ours(task: PoseTask, batch: Batch, teacher: FrozenTeacher | None = None, *, mixed: bool = False) -> Call:
    """The step of `cdkd train` and `cdkd distill`."""
    task.train()
    optimizer = torch.optim.AdamW(task.weight_groups(0.01), 1e-4, fused=True)

    def step() -> Losses:
        inputs = dict(batch)
        if teacher is not None:
            inputs |= as_batch(teacher(inputs.pop("teacher_image")))
        with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=mixed):
            losses = task(inputs, 0.5)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        return losses

    return first_losses(step)


def eager(student: PoseNetwork, loss: DistillationLoss, teacher: PoseNetwork, batch: Batch) -> Call:
    """The step as one writes it: modules as they come, losses of torch's own functions, AdamW as it comes."""
    student.train()
    loss.train()
    teacher = teacher.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW([*student.parameters(), *loss.parameters()], 1e-4)

    def step() -> Losses:
        with torch.no_grad():
            taught = teacher(normalize_images(batch["teacher_image"]))
        output = student(normalize_images(batch["image"]))
        with reference_ops():
            losses = loss(output, taught, batch["keypoints"], batch["annotated"], batch["labelled"], 0.5)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        return losses

    return first_losses(step)


def student_alone(task: PoseTask, batch: Batch) -> Callable[[], None]:
    """Forward and backward of the student from given gradients of its output."""
    student = task.student.train()
    gradients: list[Tensor] = []

    def run() -> None:
        output = student(normalize_images(batch["image"].contiguous(memory_format=torch.channels_last)))
        if not gradients:
            gradients.extend(torch.randn_like(value) / value.numel() for value in output)
        student.zero_grad()
        torch.autograd.backward(output, gradients)

    return run


def profiled_step(
    task: PoseTask, batch: Batch, teacher: FrozenTeacher | None = None
) -> Callable[[], dict[str, Any]]:
    """Where the time of our step goes, in shares: by part, and by operator."""
    task.train()
    optimizer = torch.optim.AdamW(task.weight_groups(0.01), 1e-4, fused=True)

    def step() -> None:
        inputs = dict(batch)
        if teacher is not None:
            with record_function("part: teacher"):
                inputs |= as_batch(teacher(inputs.pop("teacher_image")))
        with record_function("part: student forward"):
            images = inputs["image"].contiguous(memory_format=torch.channels_last)
            output = task.student(normalize_images(images))
        with record_function("part: losses, forward and backward"):
            # cut here, so that the losses' backward is told from the student's
            cut = SimCCOutput(*(value.detach().requires_grad_() for value in output))
            taught = SimCCOutput(
                inputs["teacher_feature"], inputs["teacher_logits_x"], inputs["teacher_logits_y"]
            )
            losses = task.loss(cut, taught, inputs["keypoints"], inputs["annotated"], inputs["labelled"], 0.5)
            optimizer.zero_grad()
            losses["total"].backward()
        with record_function("part: student backward"):
            torch.autograd.backward(output, [value.grad for value in cut])
        with record_function("part: optimiser"):
            optimizer.step()

    def run() -> dict[str, Any]:
        step()
        with profile() as profiler:
            step()
        events = profiler.key_averages()
        parts = {
            event.key.removeprefix("part: "): event.cpu_time_total
            for event in events
            if event.key.startswith("part: ")
        }
        own = {event.key: event.self_cpu_time_total for event in events if not event.key.startswith("part: ")}
        largest = sorted(own, key=lambda name: -own[name])[:OPERATORS]
        total = sum(parts.values())
        return {
            "part": {name: time / total for name, time in parts.items()},
            "operator": {name: own[name] / total for name in largest},
        }

    return run


def as_batch(output: SimCCOutput | HeatmapOutput) -> Losses:
    """The teacher's output as a batch holds it."""
    return {f"teacher_{name}": value for name, value in output._asdict().items()}


def stored(output: SimCCOutput | HeatmapOutput) -> Losses:
    """The same from the fixed views' files, which hold half floats."""
    return {name: value.half().float() for name, value in as_batch(output).items()}


def first_losses(step: Callable[[], Losses]) -> Call:
    """Return the losses of the first step whenever it is called: later ones depend on what was learnt."""
    first: list[Tensor] = []

    def call() -> list[Tensor]:
        losses = step()
        if not first:
            first.extend(
                losses[name].detach() for name in ("total", "simcc", "sape", "cca") if name in losses
            )
        return first

    return call


@contextmanager
def reference_ops() -> Iterator[None]:
    """Let the loss modules call the eager twins."""
    compiled = {name: getattr(ops, name) for name in ops.__all__}
    try:
        for name in compiled:
            setattr(ops, name, getattr(reference, name))
        yield
    finally:
        for name, function in compiled.items():
            setattr(ops, name, function)


def cases(sizes: Mapping[str, int], threads: int) -> list[Case]:
    """With the teacher in the step, and with its outputs at hand."""
    return [Case("paper", sizes, variant, threads=threads) for variant in (LIVE, STORED)]


BENCH = Bench(
    "step",
    "one training step of distillation",
    cases=[*cases(STUDENT_64, 2), *cases(STUDENT_32, 2)],
    quick=cases({**STUDENT_64, "batch": 2, "teacher": 64, "student": 32, "width": 8}, 1),
    prepare=prepare,
)

if __name__ == "__main__":
    main(BENCH)
