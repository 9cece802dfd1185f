"""Stage 5: one training step of distillation, its parts, and how busy it keeps the GPU."""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench import step
from bench.gpu import clock
from bench.gpu.report import Findings, stage_options
from cdkd_ext.data.device_crops import crops_on_device
from cdkd_ext.distillation import SAPE, TeacherOutput
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationTask
from cdkd_ext.training.captured_step import CapturedStep

LARGE = {"batch": 128, "teacher": 256, "student": 64, "bins per pixel": 3, "width": 32}
TINY = {"batch": 2, "teacher": 64, "student": 32, "bins per pixel": 2, "width": 8}
STRAIGHTFORWARD = "straightforward, float32"
LIVE, LIVE_MIXED = "teacher in the step", "teacher in the step, bfloat16 student"
STORED, STORED_MIXED = "stored outputs", "stored outputs, bfloat16 student"
PLAIN, PLAIN_MIXED = "plain training", "plain training, bfloat16"
WITHOUT_GRAPHS = ", without CUDA graphs"
ROUNDS = 7
GOALS = (
    # name, what is divided, by what, bound, whether at least
    ("straightforward step ÷ ours with the teacher", STRAIGHTFORWARD, LIVE_MIXED, 3.0, True),
    ("stored outputs ÷ plain training", STORED_MIXED, PLAIN_MIXED, 1.1, False),
)
NOTE = (
    "A step takes its batch from pinned memory (uint8 crops, labels, and the teacher's stored outputs where there are "
    "any) and ends with the optimiser. “Straightforward” is the float32 step as one writes it, its batch on the device "
    "already. torch's own settings of TF32 hold for all: off in matrix products, on in convolutions. Not reached goals "
    "are printed as such."
)


def main() -> None:
    """Time the steps, then look at the GPU's work in one of them."""
    options, findings = stage_options("step")
    device = torch.device("cpu" if options.dry_run else "cuda")
    sizes = TINY if options.dry_run else LARGE
    findings.notes.append(NOTE)
    torch.manual_seed(0)
    calls = steps(sizes, device)
    for call in calls.values():
        for _ in range(5):
            call()
    samples = clock.interleave(calls, device, 2 if options.dry_run else ROUNDS)
    times = {name: statistics.median(values) for name, values in samples.items()}
    findings.samples += [{"step": name, "seconds": values} for name, values in samples.items()]
    table = findings.table(f"Step, batch {sizes['batch']}", ("step", "ms", "samples/s"))
    table["rows"] += [[name, f"{t * 1e3:.2f}", f"{sizes['batch'] / t:.0f}"] for name, t in times.items()]
    goals = findings.table("Goals", ("goal", "wanted", "measured", ""))
    for name, over, under, bound, at_least in GOALS:
        goals["rows"].append(goal_row(name, times[over] / times[under], bound, at_least=at_least))
    findings.write(
        f"{times[STRAIGHTFORWARD] / times[LIVE_MIXED]:.2f} times as fast as the straightforward step"
    )
    add_crops(findings, sizes, device)
    if device.type == "cuda":
        goals["rows"].append(
            goal_row("GPU busy, stored outputs", busy(calls[STORED_MIXED]), 0.9, at_least=True)
        )
    findings.write()
    sys.exit(0)


def goal_row(name: str, value: float, bound: float, *, at_least: bool) -> list[str]:
    """A goal beside what was measured."""
    reached = value >= bound if at_least else value <= bound
    return [
        name,
        f"{'≥' if at_least else '≤'} {bound:g}",
        f"{value:.2f}",
        "reached" if reached else "NOT REACHED",
    ]


def steps(sizes: Mapping[str, int], device: torch.device) -> dict[str, Callable[[], object]]:
    """The competitors, each with a student of its own that starts from the same weights."""
    batch = step.draw_batch(sizes, device)
    teacher = step.network(sizes, "teacher", batch["teacher_image"])
    student = step.network(sizes, "student", batch["image"])
    sape = SAPE.between(student, teacher)
    frozen = FrozenTeacher(copy.deepcopy(teacher), device, "auto")
    output = half(frozen(batch["teacher_image"]))

    def task() -> DistillationTask:
        return DistillationTask(copy.deepcopy(student), frozen, sape=copy.deepcopy(sape)).to(device)

    def plain() -> DistillationTask:
        return DistillationTask(copy.deepcopy(student)).to(device)

    without = {name: value for name, value in batch.items() if name != "teacher_image"}
    live, stored, alone = on_host(batch), on_host({**without, "teacher_output": output}), on_host(without)
    return {
        STRAIGHTFORWARD: step.eager(copy.deepcopy(student), task().loss, teacher, batch),
        LIVE: copying(task(), live, device),
        LIVE_MIXED: copying(task(), live, device, mixed=True),
        STORED: copying(task(), stored, device),
        STORED_MIXED: copying(task(), stored, device, mixed=True),
        STORED_MIXED + WITHOUT_GRAPHS: copying(task(), stored, device, mixed=True, graphs=False),
        PLAIN: copying(plain(), alone, device),
        PLAIN_MIXED: copying(plain(), alone, device, mixed=True),
    }


def half(output: TeacherOutput) -> TeacherOutput:
    """An output as it is stored."""
    return TeacherOutput(*(None if value is None else value.half() for value in output))


def on_host(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as a loader gives it: in pinned memory where there is a GPU."""

    def move(value: Tensor) -> Tensor:
        return value.cpu().pin_memory() if torch.cuda.is_available() else value.cpu()

    return {
        name: TeacherOutput(*(None if part is None else move(part) for part in value))
        if isinstance(value, TeacherOutput)
        else move(value)
        for name, value in batch.items()
    }


def copying(
    task: DistillationTask,
    batch: Mapping[str, Any],
    device: torch.device,
    *,
    mixed: bool = False,
    graphs: bool = True,
) -> Callable[[], object]:
    """The step of a training: copy, forward, backward, optimiser."""
    task.train()
    optimizer = torch.optim.AdamW(task.parameter_groups(0.01), 1e-4, fused=True)

    def compute(images: Tensor, *rest: Tensor | None) -> dict[str, Tensor]:
        keypoints, annotated, labelled, *taught = rest
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            losses = task(
                images,
                None,
                keypoints,
                annotated,
                labelled=labelled,
                progress=0.5,
                teacher_output=TeacherOutput(*taught) if any(part is not None for part in taught) else None,
            )
        losses["total"].backward()
        return losses

    gradients = CapturedStep(compute, task.parameters(), on_gpu=None if graphs else lambda x: False)

    def run() -> None:
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in batch.items()
            if name != "teacher_output"
        }
        if "teacher_image" in moved:
            taught = task.ask_teacher(moved["teacher_image"])
        else:
            taught = batch.get("teacher_output", TeacherOutput()).to(device).widened()
        gradients(*(moved[name] for name in ("image", "keypoints", "annotated", "labelled")), *taught)
        optimizer.step()

    return run


def add_crops(findings: Findings, sizes: Mapping[str, int], device: torch.device) -> None:
    """Time of warping a batch of stored crops for both networks."""
    batch, student, teacher = sizes["batch"], sizes["student"], sizes["teacher"]
    side = teacher * 3 // 2
    maps = torch.tensor([[side / student, 0.0, 0.0], [0.0, side / student, 0.0]], device=device)
    stored = {
        "stored_image": torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=device),
        "to_stored": maps.expand(batch, 2, 3).contiguous(),
    }

    def crops() -> object:
        return crops_on_device(stored, (student, student), (teacher, teacher))

    crops()
    found = statistics.median(clock.seconds(crops, device) for _ in range(5))
    table = findings.table("Crops warped on the device", ("batch", "ms", "samples/s"))
    table["rows"].append([str(batch), f"{found * 1e3:.2f}", f"{batch / found:.0f}"])


def busy(call: Callable[[], object], count: int = 5) -> float:
    """Share of the time from the first to the last kernel of some steps in which a kernel ran."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(count):
            call()
        torch.cuda.synchronize()
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered(spans)


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Share of the time between the first start and the last end that lies in at least one span."""
    if not spans:
        return 0.0
    ordered = sorted(spans)
    total, reached = 0.0, ordered[0][0]
    for start, end in ordered:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total / (reached - ordered[0][0])


if __name__ == "__main__":
    main()
