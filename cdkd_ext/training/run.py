"""The two training commands: from a configuration to a finished run."""

from __future__ import annotations

import os
from pathlib import Path

from accelerate.utils import set_seed

from cdkd_ext.data.loading import People, load_people
from cdkd_ext.errors import check
from cdkd_ext.evaluation import describe
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.training.build import (
    build_dataset,
    build_loader,
    build_order,
    build_task,
    build_validation,
    build_views,
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
from cdkd_ext.training.state import NAME, begins_again, check_fits, copy_run, read_run


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
    config.validate()
    output = Path(config.output)
    accelerator = make_accelerator(config.cpu, config.precision)
    source = _source(output, resume)
    if source is not None and begins_again(source):
        accelerator.print(f"resume: {source} has no checkpoint yet: it begins with the first step")
        source = None
    state = None if source is None else read_run(source, config.epochs)
    # the first process draws the people and builds the caches, the others find them
    with accelerator.main_process_first():
        people = _people(config, output)
    spec = student_spec(config, people.joints)
    set_seed(config.seed)
    task, teacher = build_task(config, people, spec, accelerator)
    if source is not None and state is not None:
        check_fits(state, source, spec, task.state_dict())
    dataset = build_dataset(config, people, spec, teacher)
    chosen = choose_people(config, dataset, teacher)
    check_batch(config, task.student, len(chosen))
    order = build_order(config, dataset, chosen, accelerator)
    validation = build_validation(config, people, spec, accelerator)
    if accelerator.is_main_process:
        save_config(config, output / "config.yaml")
        if source is not None and source.resolve() != output.resolve():
            copy_run(source, output)
    loader = build_loader(config, dataset, order, teacher, accelerator)
    trainer = Trainer(config, task, loader, validation, accelerator)
    accelerator.print(_described(people))
    with tf32(config.tf32):
        record = trainer.run(state)
    metrics = "not validated" if people.val is None else describe(record)
    accelerator.print(f"{metrics}; checkpoints in {output}")
    return record


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


def prepare_views(config: TrainingConfig) -> None:
    """Store the fixed views of a run, and its teacher's outputs, without training.

    Raises:
        InputError: as `train` does; also when `data.views` is 0.
    """
    config.validate()
    check(config.data.views > 0, "data.views", config.data.views, "a positive number of views to store")
    accelerator = make_accelerator(config.cpu)
    people = _people(config, Path(config.output))
    spec = student_spec(config, people.joints)
    teacher = load_teacher(config, people.joints, accelerator)
    build_views(config, build_dataset(config, people, spec, teacher), teacher, accelerator)


def _people(config: TrainingConfig, output: Path) -> People:
    with footage_progress() as progress:
        return load_people(
            config.data, output, teacher_joints=lambda: teacher_joints(config), progress=progress
        )


def _described(people: People) -> str:
    """Whom the run validates on, and what its footage holds."""
    val = people.val
    lines = ["validation: none, the last checkpoint is the best"]
    if val is not None:
        lines = [f"validation: {len(val.persons)} people, boxes: {val.boxes}"]
    if people.footage is not None:
        lines.append(f"footage: {people.footage}")
    return "\n".join(lines)


def _source(output: Path, resume: bool | str | os.PathLike[str]) -> Path | None:
    """The folder whose state to go on from, None to begin; refuses to write over another run."""
    held = (output / NAME).exists()
    if resume is True:
        return output if held else None
    source = Path(resume) if resume else None
    if source is None or source.resolve() != output.resolve():
        expected = f"a new folder, or `--resume {output}` to go on with that run"
        check(not held, "output", f"{output}, which holds a run", expected)
    return source
