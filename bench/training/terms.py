"""What each term of distillation costs in a step: `python -m bench.training.terms`.

Forward and backward of one student from labels alone, and with CCA and SAPE beside them, the teacher's outputs given. The ways
take turns, and the median of their rounds counts. Times are of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness.table import print_rows
from bench.inference.frames import in_turns
from cdkd_ext.distillation import SAPE, TeacherOutput
from cdkd_ext.models import PoseNetwork, create_model
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationTask

JOINTS = 14
STEPS = 4  # in a row: the first of them finds other tensors in the caches


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.training.terms", description=__doc__)
    parser.add_argument("--model", default="lowres_base", help="of student and teacher")
    parser.add_argument("--head", choices=("heatmap", "simcc"), default="heatmap")
    parser.add_argument(
        "--size", type=int, default=32, help="of the student's crops; the teacher's are twice as large"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    medians = in_turns(steps(options), options.rounds, time.process_time)
    rows = [
        [name, f"{1e3 * seconds / STEPS:.1f}", f"{seconds / medians['labels']:.2f}"]
        for name, seconds in medians.items()
    ]
    print(
        f"{options.model}, {options.head}, {options.size}x{options.size}, batches of {options.batch}; torch {torch.__version__}"
    )
    print_rows([["learnt from", "ms/step", "times labels alone"], *rows])


def steps(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Some steps of each way of learning, by its name."""
    teacher = create_model(
        options.model, input_size=(2 * options.size,) * 2, num_joints=JOINTS, head=options.head
    )
    images, larger = (
        torch.randint(0, 256, (options.batch, 3, side, side), dtype=torch.uint8)
        for side in (options.size, 2 * options.size)
    )
    keypoints = torch.rand(options.batch, JOINTS, 2) * (options.size - 1)
    annotated = torch.ones(options.batch, JOINTS)
    said = FrozenTeacher(teacher)(larger)

    def student() -> PoseNetwork:
        return create_model(
            options.model, input_size=(options.size,) * 2, num_joints=JOINTS, head=options.head
        )

    def with_both(**chosen: Any) -> DistillationTask:
        own = student()
        return DistillationTask(own, teacher, sape=SAPE.between(own, teacher, **chosen))

    def some(task: DistillationTask, output: TeacherOutput | None) -> None:
        for _ in range(STEPS):
            losses = task(images, None, keypoints, annotated, teacher_output=output)
            losses["total"].backward()
            task.zero_grad()

    tasks = {
        "labels": DistillationTask(student()),
        "labels + CCA": DistillationTask(student(), teacher),
        "labels + SAPE": DistillationTask(student(), teacher, cca=None),
        "labels + CCA + SAPE": with_both(),
        "labels + CCA + SAPE, one projector": with_both(num_projectors=1, use_sau=False),
    }
    return {name: partial(some, task, None if name == "labels" else said) for name, task in tasks.items()}


if __name__ == "__main__":
    main()
