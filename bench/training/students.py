"""Several students at once against each on its own: `python -m bench.training.students`.

Three students of drawn people learn from one teacher in one epoch. What loading and teaching takes once and what each
student's own steps and files take is measured apart, in the same rounds as the training of all three together. Times are of
the processor (user and system): other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.harness.table import print_rows
from cdkd_ext.data import Augmentation, PoseDataset, load_coco_persons
from cdkd_ext.data.batches import Batch, EpochBatches, EpochLoader
from cdkd_ext.data.shared_samples import STUDENTS, SharedImages
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.models import create_model
from cdkd_ext.synthetic import draw_people
from cdkd_ext.teachers import FrozenTeacher
from cdkd_ext.training import DistillationConfig, DistillationTask, Trainer
from cdkd_ext.training.build import LastIsBest
from cdkd_ext.training.together import train_together

SIZES = ((32, 32), (64, 64), (32, 32))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.training.students", description=__doc__)
    parser.add_argument("--people", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--teacher", default="hrnet_w32_small", help="a network on 128x128 crops")
    parser.add_argument("--student", default="hrnet_w16_small")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report(measure(Path(folder), options))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each part in each round."""
    draw_people(folder / "people", options.people, seed=0)
    persons, joints = load_coco_persons(folder / "people/annotations.json", folder / "people/images")
    datasets = [
        PoseDataset(persons, joints, size=size, teacher_size=(128, 128), augmentation=Augmentation())
        for size in SIZES
    ]
    loader = EpochLoader(SharedImages(datasets), EpochBatches(range(len(persons)), 32, seed=0))
    known = {"num_joints": len(joints), "joints": joints}
    teacher = FrozenTeacher(create_model(options.teacher, input_size=(128, 128), **known))
    accelerator = make_accelerator(True, "no")

    def trainer(number: int) -> Trainer:
        student = create_model(options.student, input_size=SIZES[number], split_ratio=2.0, **known)
        config = DistillationConfig(output=str(folder / f"student{number}"), epochs=1)
        task = DistillationTask(student, teacher, sape=None)
        return Trainer(config, task, loader, LastIsBest(), accelerator)

    kept: list[Batch] = []

    def shared() -> None:
        kept.clear()
        for batch in loader.epoch(0):
            output = teacher(batch[STUDENTS][0].pop("teacher_image"))
            kept.append({STUDENTS: [{**part, "teacher_output": output} for part in batch[STUDENTS]]})

    def own(number: int) -> Callable[[], None]:
        alone = trainer(number)

        def steps() -> None:
            alone.start()
            alone.begin_epoch()
            for batch in kept:
                alone.train_batch(batch[STUDENTS][number], 0)
            alone.finish_epoch(0)
            alone.close()

        return steps

    def together() -> Callable[[], object]:
        trainers = [trainer(number) for number in range(len(SIZES))]
        return lambda: train_together(trainers, [None] * len(SIZES), teacher)

    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        parts = {"loader and teacher": shared}
        parts |= {f"student {number + 1}, {size[0]} px": own(number) for number, size in enumerate(SIZES)}
        for name, part in [*parts.items(), ("all three together", together())]:
            started = time.process_time()
            part()
            seconds.setdefault(name, []).append(time.process_time() - started)
    return seconds


def report(seconds: dict[str, list[float]]) -> None:
    """Print medians, and the ratio of the whole to its parts in each round."""
    rows = [["part", "seconds, median"]]
    rows += [[name, f"{statistics.median(values):.2f}"] for name, values in seconds.items()]
    print_rows(rows)
    *parts, together = seconds.values()
    ratios = [whole / sum(own) for whole, *own in zip(together, *parts, strict=True)]
    low, high = min(ratios), max(ratios)
    print(f"together / sum of the parts: {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
