"""Samples per second of one core, from images, stored crops and fixed views: `python -m bench.gpu.crops`.

What a GPU leaves to the CPU decides how many cores feed it. Times are of the processor (user and system), not of the
clock: other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.harness.table import print_rows
from cdkd_ext.data import Augmentation, Person, PoseDataset, load_coco_persons
from cdkd_ext.data.cached_views import FixedViews, build_student_views
from cdkd_ext.data.device_crops import crops_on_device
from cdkd_ext.data.stored_crops import StoredCrops, build_stored_crops
from cdkd_ext.images import read_image
from cdkd_ext.joints import JointSet
from cdkd_ext.synthetic.dataset import draw_people

WANTED = 3000  # samples per second of a training


def main() -> None:
    """Measure every path on some people."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.crops", description=__doc__)
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO-format; without it, people are drawn"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER")
    parser.add_argument("--people", type=int, default=256, help="how many to use")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--student", type=int, default=64, help="side of the student's crops")
    parser.add_argument("--teacher", type=int, default=256, help="side of the teacher's crops")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        persons, joints = people(options, folder)
        dataset = PoseDataset(
            persons[: options.people],
            joints,
            size=(options.student, options.student),
            teacher_size=(options.teacher, options.teacher),
            augmentation=Augmentation(),
        )
        rates = measure(dataset, folder, options.batch)
    rows = [["path", "samples/s and core", f"cores for {WANTED} samples/s"]]
    rows += [[path, f"{rate:.0f}", f"{WANTED / rate:.1f}"] for path, rate in rates.items()]
    print_rows(rows)


def people(options: argparse.Namespace, folder: Path) -> tuple[Sequence[Person], JointSet]:
    """The people of the annotations, or drawn ones."""
    if options.annotations:
        return load_coco_persons(options.annotations, options.images or options.annotations.parent)
    draw_people(folder / "drawn", options.people, seed=0)
    return load_coco_persons(folder / "drawn" / "annotations.json", folder / "drawn" / "images")


def measure(dataset: PoseDataset, folder: Path, batch: int) -> dict[str, float]:
    """Samples per second of one core by path."""
    views = FixedViews(build_student_views(dataset, 1, folder))
    stored = StoredCrops(dataset, build_stored_crops(dataset, folder))
    count = len(dataset)
    keys = [[(index % count, 0) for index in range(start, start + batch)] for start in range(0, count, batch)]
    ready = stored.batch(keys[0])
    paths: dict[str, Callable[[list[tuple[int, int]]], object]] = {
        "images: decode alone": lambda chosen: [read(dataset, index) for index, _ in chosen],
        "images: decode, crops for both": lambda chosen: [dataset[key] for key in chosen],
        "stored crops: read and draw (the rest on a GPU)": stored.batch,
        "stored crops: the warp for both, on the CPU": lambda chosen: crops_on_device(
            ready, dataset.size, dataset.teacher_size
        ),
        "fixed views: read": views.batch,
    }
    return {name: rate(path, keys) for name, path in paths.items()}


def read(dataset: PoseDataset, index: int) -> object:
    """A person's image."""
    person = dataset.persons[index]
    return read_image(person.image_path, person.image_size)


def rate(path: Callable[[list[tuple[int, int]]], object], keys: Sequence[list[tuple[int, int]]]) -> float:
    """Samples per second of processor time; what is read comes from memory after the first pass."""
    path(keys[0])
    started = time.process_time()
    for chosen in keys:
        path(chosen)
    return sum(map(len, keys)) / (time.process_time() - started)


if __name__ == "__main__":
    main()
