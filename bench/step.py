"""One whole distillation step: HRNet-W32 on 256 × 256 teaches HRNet-W32 on 64 × 64 or 32 × 32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import profile, record_function

from bench.harness.benchmark import Bench
from bench.harness.case import EAGER, OURS, Call, Case, Setup, repeated, total_bytes
from bench.harness.goals import Goal, at, faster_than, in_times_of
from bench.harness.run import main
from cdkd_ext import ops
from cdkd_ext.distillation import SAPE, DistillationLoss, TeacherOutput
from cdkd_ext.models import PoseNetwork, SimCCOutput, create_model
from cdkd_ext.ops import reference
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationTask

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

Batch = Mapping[str, Any]
Losses = dict[str, Tensor]


def prepare(case: Case, device: torch.device) -> Setup:
    """A teacher, and a student of its own with the same weights for every competitor."""
    sizes = case.sizes
    batch = draw_batch(sizes, device)
    teacher = network(sizes, "teacher", batch["teacher_image"])
    student = network(sizes, "student", batch["image"])
    sape = SAPE.between(student, teacher)
    fast_teacher = FrozenTeacher(copy.deepcopy(teacher), device, "auto")
    input_bytes = total_bytes(*batch.values())

    def task(teacher: FrozenTeacher = fast_teacher) -> DistillationTask:
        return DistillationTask(copy.deepcopy(student), teacher, sape=copy.deepcopy(sape)).to(device)

    calls: dict[str, Call] = {}
    if case.variant == LIVE:
        calls[OURS] = ours(task(), batch)
        if fast_teacher.precision != "float32":
            calls[FLOAT32] = ours(task(FrozenTeacher(copy.deepcopy(teacher), device)), batch)
        profiled = profiled_step(task(), batch, fast_teacher)
        floor = {"teacher forward": repeated(lambda: fast_teacher(batch["teacher_image"]))}
    else:
        output = stored(fast_teacher(batch["teacher_image"]))
        input_bytes += total_bytes(*(value for value in output if value is not None))
        batch = {**batch, "teacher_output": output}
        calls[OURS] = ours(task(), batch)
        calls[MIXED] = ours(task(), batch, mixed=True)
        profiled = profiled_step(task(), batch)
        floor = {}
    calls[EAGER] = eager(copy.deepcopy(student), task().loss, teacher, batch)
    plain = {name: batch[name] for name in ("image", "keypoints", "annotated", "labelled")}
    return Setup(
        calls=calls,
        # of bfloat16, in the teacher or in both; float32 alone agrees a thousand times better
        tolerance=2e-2 if case.variant == LIVE else 5e-2,
        input_bytes=input_bytes,
        floor={**floor, "student forward and backward": repeated(student_alone(task(), batch))},
        context={PLAIN: repeated(ours(DistillationTask(copy.deepcopy(student)).to(device), plain))},
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
        made.train()(images[:4])
    for norm in norms:
        norm.momentum = 0.1
    return made


def ours(task: DistillationTask, batch: Batch, *, mixed: bool = False) -> Call:
    """The step of `cdkd train` and `cdkd distill`."""
    task.train()
    optimizer = torch.optim.AdamW(task.parameter_groups(0.01), 1e-4, fused=True)

    def step() -> Losses:
        with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=mixed):
            losses = task(
                batch["image"],
                None if "teacher_output" in batch else batch.get("teacher_image"),
                batch["keypoints"],
                batch["annotated"],
                labelled=batch["labelled"],
                progress=0.5,
                teacher_output=batch.get("teacher_output"),
            )
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
            taught = teacher(batch["teacher_image"])
        output = student(batch["image"])
        with reference_ops():
            losses = loss(output, taught, batch["keypoints"], batch["annotated"], batch["labelled"], 0.5)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        return losses

    return first_losses(step)


def student_alone(task: DistillationTask, batch: Batch) -> Callable[[], None]:
    """Forward and backward of the student from given gradients of its output."""
    student = task.student.train()
    gradients: list[Tensor] = []

    def run() -> None:
        output = student(batch["image"].contiguous(memory_format=torch.channels_last))
        if not gradients:
            gradients.extend(torch.randn_like(value) / value.numel() for value in output)
        student.zero_grad()
        torch.autograd.backward(output, gradients)

    return run


def profiled_step(
    task: DistillationTask, batch: Batch, teacher: FrozenTeacher | None = None
) -> Callable[[], dict[str, Any]]:
    """Where the time of our step goes, in shares: by part, and by operator."""
    task.train()
    optimizer = torch.optim.AdamW(task.parameter_groups(0.01), 1e-4, fused=True)

    def step() -> None:
        inputs = dict(batch)
        if teacher is not None:
            with record_function("part: teacher"):
                inputs["teacher_output"] = teacher(inputs["teacher_image"])
        with record_function("part: student forward"):
            images = inputs["image"].contiguous(memory_format=torch.channels_last)
            output = task.student(images)
        with record_function("part: losses, forward and backward"):
            # cut here, so that the losses' backward is apart from the student's
            cut = SimCCOutput(*(value.detach().requires_grad_() for value in output))
            labels = (inputs["keypoints"], inputs["annotated"], inputs["labelled"])
            losses = task.loss(cut, inputs["teacher_output"], *labels, 0.5)
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


def stored(output: TeacherOutput) -> TeacherOutput:
    """A teacher's output as the fixed views' files give it back: they hold half floats."""
    return TeacherOutput(*(value.half().float() for value in output if value is not None))


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


def goals(sizes: Mapping[str, int]) -> list[Goal]:
    """Of one student."""
    live, stored = (at(sizes, variant=variant, threads=2) for variant in (LIVE, STORED))
    what = f"distillation step, HRNet-W32, 256 × 256 to {sizes['student']} × {sizes['student']}, B = 16"
    return [
        Goal(f"{what}: against eager", live, faster_than(EAGER), 2.5),
        Goal(f"{what}, teacher's outputs stored: against eager", stored, faster_than(EAGER), 6),
        Goal(f"{what}, stored: in times of plain training", stored, in_times_of(PLAIN), 1.15, False),
    ]


BENCH = Bench(
    "step",
    "one training step of distillation",
    cases=[*cases(STUDENT_64, 2), *cases(STUDENT_32, 2)],
    quick=cases({**STUDENT_64, "batch": 2, "teacher": 64, "student": 32, "width": 8}, 1),
    prepare=prepare,
    goals=[*goals(STUDENT_64), *goals(STUDENT_32)],
)

if __name__ == "__main__":
    main(BENCH)
