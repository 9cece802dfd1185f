"""The training commands: from a configuration to a finished run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed

from cdkd_ext.checkpoints.run_files import RUN_FILES, STATE
from cdkd_ext.data.cached_views import FixedViews
from cdkd_ext.data.loading import People, load_people
from cdkd_ext.errors import check
from cdkd_ext.evaluation import describe
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.files import remove_leftovers
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import ModelSpec
from cdkd_ext.teachers import AskedOnce
from cdkd_ext.training.agreement import METRIC, watch_people
from cdkd_ext.training.build import (
    AnyTeacher,
    ask_about_people,
    build_dataset,
    build_loader,
    build_order,
    build_task,
    build_validation,
    build_views,
    cache_folder,
    check_batch,
    choose_people,
    load_teacher,
    student_spec,
    teacher_joints,
)
from cdkd_ext.training.config import DistillationConfig, TrainingConfig
from cdkd_ext.training.files import save_config
from cdkd_ext.training.loop import Record, Trainer
from cdkd_ext.training.precision import tf32
from cdkd_ext.training.progress import footage_progress
from cdkd_ext.training.shared import check_shared, save_students
from cdkd_ext.training.state import begins_again, check_fits, copy_run, read_run
from cdkd_ext.training.task import DistillationTask
from cdkd_ext.training.together import train_together

_ENLARGED = 2  # times: of people who have fewer pixels a teacher sees too little


def train(config: TrainingConfig, *, resume: bool | str | os.PathLike[str] = False) -> Record:
    """Train a teacher or a plain student; given a `DistillationConfig`, a distilled student.

    Args:
        config: the run; its output folder receives config.yaml, last and best checkpoint, metrics.json. Nothing is
            written there before all that can be checked has been.
        resume: the folder of a run whose state.pt to go on from, which stays as it is if it is not the output folder;
            true takes the output folder. A run that has no checkpoint yet begins with its first step. The
            configuration is the given one: another learning rate or weight decay takes effect.

    Returns:
        The record of the last epoch: losses, and the metrics of the validation.

    Raises:
        InputError: the configuration, the data or a checkpoint is wrong; names the file and the field.
        NonFiniteLossError: a term of the loss became infinite or NaN.
        InterruptedRun: Ctrl-C.

    Example:
        ```python
        from cdkd_ext.data import DataConfig
        from cdkd_ext.training import ModelConfig, TrainingConfig, train

        data = DataConfig(root="coco", train="train.json", val="val.json")
        train(TrainingConfig(output="runs/teacher", model=ModelConfig(input_size=(64, 64)), data=data))
        ```
    """
    return _train([config], [resume], config.seed)[0]


def distill(config: DistillationConfig, *, resume: bool | str | os.PathLike[str] = False) -> Record:
    """Train a student with a teacher; see `train`.

    Example:
        ```python
        from cdkd_ext.data import DataConfig
        from cdkd_ext.training import DistillationConfig, distill

        data = DataConfig(root="coco", train="train.json", val="val.json")
        distill(DistillationConfig(output="runs/student", teacher="runs/teacher", data=data))
        ```
    """
    return train(config, resume=resume)


def distill_students(
    configs: Sequence[DistillationConfig],
    *,
    seed: int = 0,
    resume: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """Distil several students at once: images are read once and the teacher is asked once for all of them.

    A student ends at the same bits as it would alone, if its own seed is the common one.

    Args:
        configs: a run each, with an output of its own. They may differ in the network, the losses, the optimiser, the
            seed of fresh weights, and what concerns the validation; all else is shared and must be the same.
        seed: of the order of the people and of their augmentation.
        resume: go on from what the outputs hold; those that have come less far catch up first.
        folder: where to write which runs belong together, for `cdkd distill --resume FOLDER`.

    Returns:
        The record of each student's last epoch.

    Raises:
        InputError: as `train` does; also when something differs that is shared.
        NonFiniteLossError: a student's loss became infinite or NaN, which ends all.
        InterruptedRun: Ctrl-C.

    Example:
        ```python
        from cdkd_ext.data import DataConfig
        from cdkd_ext.training import DistillationConfig, ModelConfig, distill_students

        data = DataConfig(root="coco", train="train.json", val="val.json")
        distill_students([
            DistillationConfig(
                output=f"runs/student{size}", teacher="runs/teacher", data=data, model=ModelConfig(input_size=(size, size))
            )
            for size in (32, 64)
        ])
        ```
    """
    check(len(configs) > 0, "configs", "none", "at least one student")
    check_shared(configs)
    return _train(configs, [resume] * len(configs), seed, None if folder is None else Path(folder))


def _train(
    configs: Sequence[TrainingConfig],
    resume: Sequence[bool | str | os.PathLike[str]],
    seed: int,
    folder: Path | None = None,
) -> list[Record]:
    for config in configs:
        config.validate()
    first = configs[0]
    accelerator = make_accelerator(first.cpu, first.precision)
    outputs = [Path(config.output) for config in configs]
    sources = [_begun(_source(output, own), accelerator) for output, own in zip(outputs, resume, strict=True)]
    states = [
        None if source is None else read_run(source, config.epochs)
        for source, config in zip(sources, configs, strict=True)
    ]
    if first.data.root is None and not first.data.images:
        # before they are drawn: their joints are known
        for config, source in zip(configs, sources, strict=True):
            student_spec(config, MPII_JOINTS, source)
    # the first process draws the people and builds the caches, the others find them
    with accelerator.main_process_first():
        people = _people(first, outputs[0])
    specs = [
        student_spec(config, people.joints, source) for config, source in zip(configs, sources, strict=True)
    ]
    tasks, teachers = _build_tasks(configs, people, specs, sources, accelerator)
    teacher = teachers[0]
    for task, spec, source, state in zip(tasks, specs, sources, states, strict=True):
        if source is not None and state is not None:
            check_fits(state, source, spec, task.state_dict())
    # what is drawn for a view, and in which order, is the same for all
    drawn = [replace(config, seed=seed) for config in configs]
    datasets = [build_dataset(own, people, spec, teacher) for own, spec in zip(drawn, specs, strict=True)]
    chosen = choose_people(first, datasets[0], teacher)
    for config, task in zip(configs, tasks, strict=True):
        check_batch(config, task.student, len(chosen))
    order = build_order(drawn[0], datasets[0], chosen, accelerator)
    if accelerator.is_main_process:
        _begin_folders(configs, sources)
        if folder is not None:
            save_students(folder, seed, [config.output for config in configs])
    loader = build_loader(drawn, datasets, order, teachers, accelerator)
    validations = [
        build_validation(config, people, spec, accelerator, teacher, cache_folder(first))
        for config, spec in zip(configs, specs, strict=True)
    ]
    trainers = [
        Trainer(config, task, loader, validation, accelerator)
        for config, task, validation in zip(configs, tasks, validations, strict=True)
    ]
    accelerator.print(_described(people, validations[0].metric))
    accelerator.print(_read_as(first, people))
    small = _too_small(first, people, teacher)
    if small:
        accelerator.print(small)
    with tf32(first.tf32):
        records = train_together(trainers, states, teacher if len(trainers) > 1 else None)
    for output, record in zip(outputs, records, strict=True):
        # a run may go on to an epoch after which it was not validated
        metrics = describe(record) if "people" in record else "not validated"
        accelerator.print(f"{metrics}; checkpoints in {output}")
    return records


def _too_small(config: TrainingConfig, people: People, teacher: AnyTeacher | None) -> str | None:
    """That a teacher is asked about people who have few of the pixels that it sees, where it is."""
    if people.footage is None or teacher is None or not isinstance(config, DistillationConfig):
        return None
    asked = teacher.network if isinstance(teacher, AskedOnce) else teacher
    spec = asked.teacher_spec
    height = config.teacher_options.height or spec.input_size[0]
    has = spec.padding * float(np.median([person.box[3] for person in people.footage.persons]))
    if has >= height / _ENLARGED:
        return None
    return (
        f"the teacher sees crops of {height} pixels, of which half of the footage's people have {has:.0f} or fewer: "
        "what it says of enlarged people is worse than of near ones"
    )


def _read_as(config: TrainingConfig, people: People) -> str:
    """Which joints change places in mirrored images, and which way up labelled images are."""
    pairs = ", ".join(f"{left} - {right}" for left, right in people.joints.flip_pairs) or "none"
    mirrored = f"joints that mirror each other: {pairs}"
    if not people.train and people.val is None:
        # footage is upright whatever the option says
        return mirrored
    pixels = (
        "turned by their orientation tags" if config.data.upright else "as stored (data.upright turns them)"
    )
    images = "images" if people.footage is None else "labelled images"
    return f"{mirrored}; {images}: {pixels}"


def _build_tasks(
    configs: Sequence[TrainingConfig],
    people: People,
    specs: Sequence[ModelSpec],
    sources: Sequence[Path | None],
    accelerator: Accelerator,
) -> tuple[list[DistillationTask], list[AnyTeacher | None]]:
    """Each run's student with its losses, from its own seed, and what all have one teacher say to it."""
    tasks: list[DistillationTask] = []
    teachers: list[AnyTeacher | None] = []
    for config, spec, source in zip(configs, specs, sources, strict=True):
        set_seed(config.seed)
        first = teachers[0] if teachers else None
        task, teacher = build_task(config, people, spec, accelerator, first, resumed=source is not None)
        tasks.append(task)
        teachers.append(teacher)
    return tasks, teachers


def _begin_folders(configs: Sequence[TrainingConfig], sources: Sequence[Path | None]) -> None:
    """Write each run's configuration, and copy what it goes on from."""
    for config, source in zip(configs, sources, strict=True):
        output = Path(config.output)
        remove_leftovers(*(output / name for name in RUN_FILES))
        save_config(config, output / "config.yaml")
        if source is not None and source.resolve() != output.resolve():
            copy_run(source, output)


def _begun(source: Path | None, accelerator: Accelerator) -> Path | None:
    if source is None or not begins_again(source):
        return source
    accelerator.print(f"resume: {source} has no checkpoint yet: it begins with the first step")
    return None


def prepare_views(config: TrainingConfig) -> FixedViews:
    """Store the fixed views of a run, and its teacher's outputs, without training; return them.

    With a compact teacher cache, several processes may do so for one cache at a time.

    Raises:
        InputError: as `train` does; also when `data.views` is 0.
    """
    config.validate()
    check(config.data.views > 0, "data.views", config.data.views, "a positive number of views to store")
    accelerator = make_accelerator(config.cpu)
    people = _people(config, Path(config.output))
    spec = student_spec(config, people.joints)
    teacher = load_teacher(config, spec, people.joints, accelerator)
    dataset = build_dataset(config, people, spec, teacher)
    if isinstance(teacher, AskedOnce):
        ask_about_people(config, dataset, teacher, accelerator)
        return build_views(config, dataset, None, accelerator)
    return build_views(config, dataset, teacher, accelerator)


def _people(config: TrainingConfig, output: Path) -> People:
    with footage_progress() as progress:
        people = load_people(
            config.data, output, teacher_joints=lambda: teacher_joints(config), progress=progress
        )
    return watch_people(config, people)


def _described(people: People, metric: str) -> str:
    """Whom the run validates on, and what its footage holds."""
    val = people.val
    lines = ["validation: none, the last checkpoint is the best"]
    if metric == METRIC:
        lines = [
            f"validation: agreement with the teacher, {len(people.watched)} people who are not trained on"
        ]
    if val is not None:
        lines = [f"validation: {len(val.persons)} people, boxes: {val.boxes}"]
    if people.footage is not None:
        lines.append(f"footage: {people.footage}")
    return "\n".join(lines)


def _source(output: Path, resume: bool | str | os.PathLike[str]) -> Path | None:
    """The folder whose state to go on from, None to begin; refuses to write over another run."""
    held = (output / STATE).exists()
    if resume is True:
        return output if held else None
    source = Path(resume) if resume else None
    if source is None or source.resolve() != output.resolve():
        expected = f"a new folder, or `--resume {shlex.quote(str(output))}` to go on with that run"
        check(not held, "output", f"{output}, which holds a run", expected)
    return source
