"""What each of two processes does in test_processes.py: one step through Accelerate on its half of a batch."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cdkd_ext.distillation import ETHT, SAPE
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.models import create_model
from cdkd_ext.training import DistillationTask

BATCH = 6


def make_task() -> DistillationTask:
    torch.manual_seed(0)
    student, teacher = (
        create_model("hrnet_w8_small", input_size=(side, side), num_joints=17) for side in (32, 64)
    )
    return DistillationTask(student, teacher, sape=SAPE.between(student, teacher), tau=ETHT())


def draw_batch() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    small, large = (
        torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8, generator=generator)
        for side in (32, 64)
    )
    annotated = (torch.rand(BATCH, 17, generator=generator) < 0.8).float()
    return [small, large, torch.rand(BATCH, 17, 2, generator=generator) * 31, annotated]


def step(task: torch.nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    return task(*batch, progress=0.5)["total"]


def main(folder: Path) -> None:
    accelerator = make_accelerator(cpu=True)
    rank = accelerator.process_index
    task = make_task()
    # what Accelerate is given to average gradients by
    wrapped, _ = accelerator.prepare(task, torch.optim.SGD(task.parameters(), 0.1))
    half = [value[rank * BATCH // 2 : (rank + 1) * BATCH // 2] for value in draw_batch()]
    wrapped.eval()
    accelerator.backward(step(wrapped, half))
    gradients = {
        name: value.grad.clone() for name, value in task.named_parameters() if value.grad is not None
    }
    wrapped.train()
    step(wrapped, half)
    buffers = {name: value.clone() for name, value in task.named_buffers()}
    torch.save({"gradients": gradients, "buffers": buffers}, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
