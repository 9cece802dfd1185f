"""Runs the demonstration: its trainings are commands of their own, side by side on the cores there are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdkd_ext.checkpoints.native import read_spec
from cdkd_ext.data import DataConfig
from cdkd_ext.data.loading import load_validation, prepare_synthetic
from cdkd_ext.demo.arms import ALONE, DISTILLED, TENTH_ALONE, TENTH_DISTILLED, Training
from cdkd_ext.demo.measure import measure_students
from cdkd_ext.demo.report import write_report
from cdkd_ext.demo.teacher import TEACHER
from cdkd_ext.deployment import export_network
from cdkd_ext.errors import InputError, check
from cdkd_ext.extras import missing_extra
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.reporting import write_report as write_page
from cdkd_ext.studies import StudyRun, run_study

_SHOWN = 500  # people of the page


@dataclass
class DemoConfig:
    """The demonstration.

    Args:
        output: folder of the images, the runs and the report.
        teacher: checkpoint of the network that teaches; nothing takes the one that comes with the package.
        synthetic_people: how many people to draw for training.
        validation_people: how many others to draw for validation.
        epochs: passes of every student over the training people; one that learns from a tenth of them passes as
            many times more over these, so that all take as many steps.
        views: fixed augmented views per person that all students share; their mirror images come for free.
        seeds: students of each kind, two or more.
        processes: trainings side by side; 0 takes one per core.
    """

    output: str = "runs/demo"
    teacher: str | None = None
    synthetic_people: int = 3000
    validation_people: int = 1000
    epochs: int = 4
    views: int = 4
    seeds: int = 3
    processes: int = 0


def run_demo(config: DemoConfig) -> Path:
    """Run everything and return the path of the report; runs that an earlier call finished are kept.

    Raises:
        InputError: a number is too small, or a training failed (its log is named).
    """
    for name in ("synthetic_people", "validation_people", "epochs", "views"):
        check(getattr(config, name) > 0, name, getattr(config, name), "a positive number")
    check(config.seeds >= 2, "seeds", config.seeds, "at least 2, so that there is a spread")
    teacher = Path(config.teacher).absolute() if config.teacher else TEACHER
    check(teacher.is_file(), "teacher", teacher, "an existing checkpoint")
    joints = read_spec(teacher, "teacher").joints
    drawn = joints is not None and joints.names == MPII_JOINTS.names
    check(
        drawn,
        "teacher",
        f"{teacher}, of other joints",
        "a checkpoint with the joints of drawn people, MPII's",
    )
    output = Path(config.output).absolute()
    processes = config.processes or os.cpu_count() or 1
    count, others = config.synthetic_people, config.validation_people
    started = time.perf_counter()
    with _stage(f"drawing {count} + {others} people"):
        people = prepare_synthetic(output / "synthetic", count, validation=others, workers=processes)
    training = Training(people, count, output / "views", teacher, config.epochs, config.views, config.seeds)
    runs = training.runs()
    with _stage(f"training {len(runs)} students, {processes} at a time: {config.epochs} passes each"):
        _train(runs, output, processes)
    with _stage("measuring"):
        truth = load_validation(DataConfig(root=str(people)))
        measured = measure_students(runs, output, truth, teacher)
    report = write_report(output, measured, teacher=teacher, seconds=time.perf_counter() - started)
    print(report.read_text())
    _write_what_to_use(output, people)
    return report


def _train(runs: list[StudyRun], output: Path, processes: int) -> None:
    for ended in run_study(runs, output, jobs=processes, report=lambda line: print(f"  {line}", flush=True)):
        if ended.state != "finished":
            folder = output / ended.name
            raise InputError(f"the training in {folder} failed: {ended.message} (see {folder / 'log.txt'})")


def _write_what_to_use(output: Path, people: Path) -> None:
    """A page about the students and, where the extra `export` is there, one of them as a file that runs anywhere."""
    runs = [str(output / f"{arm.name}_0") for arm in (DISTILLED, ALONE, TENTH_DISTILLED, TENTH_ALONE)]
    print(f"to look at: {write_page(runs, str(output / 'report.html'), people=_SHOWN, cpu=True)}")
    try:
        exported = export_network(runs[0], str(output / "student.onnx"))
    except ModuleNotFoundError as error:
        hint = missing_extra(error, "student.onnx")
        if hint is None:
            raise
        print(hint)
        return
    print(exported)
    print(f"to use it: cdkd predict {exported.path} {people / 'val' / 'images'} --boxes whole")


@contextmanager
def _stage(title: str) -> Iterator[None]:
    started = time.perf_counter()
    print(f"{title} …", flush=True)
    yield
    print(f"  {time.perf_counter() - started:.0f} s", flush=True)
