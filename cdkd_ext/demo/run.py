"""Runs the demonstration: its trainings are command lines of their own, side by side on the cores there are."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cdkd_ext.data import Augmentation, DataConfig
from cdkd_ext.data.loading import prepare_synthetic
from cdkd_ext.demo.report import write_report
from cdkd_ext.deployment import export_network
from cdkd_ext.errors import InputError, check
from cdkd_ext.extras import missing_extra
from cdkd_ext.reporting import write_report as write_page
from cdkd_ext.training import (
    DistillationConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    prepare_views,
    save_config,
)

_SHOWN = 500  # people of the page


@dataclass
class DemoConfig:
    """The demonstration.

    Args:
        output: folder of the images, the runs and the report.
        synthetic_people: how many people to draw for training; an eighth as many for validation.
        teacher_epochs: passes of the teacher.
        student_epochs: passes of every student.
        views: fixed augmented views per person that all students share.
        seeds: students of each kind, two or more.
        processes: trainings side by side; 0 takes one per core.
    """

    output: str = "runs/demo"
    synthetic_people: int = 6000
    teacher_epochs: int = 12
    student_epochs: int = 8
    views: int = 4
    seeds: int = 2
    processes: int = 0


def run_demo(config: DemoConfig) -> Path:
    """Run everything and return the path of the report; runs that an earlier call finished are kept.

    Raises:
        InputError: a number is too small, or a training failed (its log is named).
    """
    for name in ("synthetic_people", "teacher_epochs", "student_epochs", "views"):
        check(getattr(config, name) > 0, name, getattr(config, name), "a positive number")
    check(config.seeds >= 2, "seeds", config.seeds, "at least 2, so that there is a spread")
    config = replace(config, output=str(Path(config.output).absolute()))
    output = Path(config.output)
    processes = config.processes or os.cpu_count() or 1
    started = time.perf_counter()
    count = config.synthetic_people
    with _stage(f"drawing {count} + {max(1, count // 8)} people"):
        people = prepare_synthetic(output / "synthetic", count, workers=processes)
    teacher = _teacher(config, people)
    with _stage(f"training the teacher: {teacher.epochs} epochs"):
        _run_all([teacher], side_by_side=1, processes=processes)
    # the longer trainings first, so that no core is idle at the end
    students = [make(config, people, seed) for make in (_distilled, _alone) for seed in range(config.seeds)]
    with _stage(f"storing {config.views} views per person and the teacher's outputs for them"):
        prepare_views(replace(students[0], data=replace(students[0].data, workers=processes)))
    with _stage(f"training {len(students)} students: {config.student_epochs} epochs each"):
        _run_all(students, side_by_side=processes)
    report = write_report(output, people, seeds=config.seeds, seconds=time.perf_counter() - started)
    print(report.read_text())
    _write_what_to_use(output, people)
    return report


def _write_what_to_use(output: Path, people: Path) -> None:
    """A page about the students and, where the extra `export` is there, one of them as a file that runs anywhere."""
    runs = [str(output / name) for name in ("distilled_0", "alone_0")]
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


def _teacher(config: DemoConfig, people: Path) -> TrainingConfig:
    return TrainingConfig(
        output=f"{config.output}/teacher",
        model=ModelConfig(input_size=(64, 64)),
        data=DataConfig(root=str(people), augmentation=_augmentation(), workers=0),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        epochs=config.teacher_epochs,
        evaluate_every=4,
    )


def _alone(config: DemoConfig, people: Path, seed: int) -> TrainingConfig:
    return TrainingConfig(output=f"{config.output}/alone_{seed}", **_student(config, people, seed))


def _distilled(config: DemoConfig, people: Path, seed: int) -> DistillationConfig:
    return DistillationConfig(
        output=f"{config.output}/distilled_{seed}",
        teacher=f"{config.output}/teacher/last.safetensors",
        **_student(config, people, seed),
    )


def _student(config: DemoConfig, people: Path, seed: int) -> dict[str, Any]:
    """What both kinds of student share."""
    return {
        "model": ModelConfig(),
        "data": DataConfig(
            root=str(people),
            augmentation=_augmentation(),
            views=config.views,
            cache=f"{config.output}/views",
            workers=0,
        ),
        "epochs": config.student_epochs,
        "evaluate_every": 2,
        "seed": seed,
    }


def _augmentation() -> Augmentation:
    return Augmentation(scale=0.15, rotation=15.0)


@contextmanager
def _stage(title: str) -> Iterator[None]:
    started = time.perf_counter()
    print(f"{title} …", flush=True)
    yield
    print(f"  {time.perf_counter() - started:.0f} s", flush=True)


def _command(config: TrainingConfig, processes: int) -> list[str]:
    """The command line of a training; several processes share one training through torch's launcher."""
    output = Path(config.output)
    save_config(config, output / "request.yaml")
    start = [sys.executable, "-m", "cdkd_ext.cli"]
    if processes > 1:
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
        ]
        start = [*launcher, "-m", "cdkd_ext.cli"]
    how = f"--resume={output}" if (output / "state.pt").exists() else f"--config={output / 'request.yaml'}"
    return [*start, config.command, how]


def _run_all(configs: Sequence[TrainingConfig], *, side_by_side: int, processes: int = 1) -> None:
    """Run trainings, at most `side_by_side` at a time, one thread per process; each writes log.txt in its folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    waiting = [config for config in configs if not _finished(config)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                config = waiting.pop(0)
                command = _command(config, processes)
                log = Path(config.output) / "log.txt"
                # python -m looks in the working folder first, and a checkout there would hide the installed package
                with log.open("w") as file:
                    running[config.output] = subprocess.Popen(
                        command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=config.output
                    )
            for name, process in list(running.items()):
                try:
                    status = process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                del running[name]
                if status != 0:
                    log = Path(name) / "log.txt"
                    raise InputError(f"the training in {name} failed: {_last_line(log)} (see {log})")
    finally:
        for process in running.values():
            process.terminate()


def _finished(config: TrainingConfig) -> bool:
    metrics = Path(config.output) / "metrics.json"
    return metrics.exists() and len(json.loads(metrics.read_text())["epochs"]) >= config.epochs


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
