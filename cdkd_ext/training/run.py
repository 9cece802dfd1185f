"""The two training commands: from a configuration to a finished run."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed

from cdkd_ext.data.loading import People, load_people
from cdkd_ext.errors import check, fail
from cdkd_ext.evaluation import describe
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.training.build import (
    build_dataset,
    build_loader,
    build_task,
    build_validation,
    build_views,
    load_teacher,
    student_spec,
)
from cdkd_ext.training.config import DistillationConfig, TrainingConfig
from cdkd_ext.training.files import save_config
from cdkd_ext.training.loop import Record, Trainer
from cdkd_ext.training.precision import tf32


def train(config: TrainingConfig, *, resume: bool = False) -> Record:
    """Train a teacher or a plain student; given a `DistillationConfig`, a distilled student.

    Args:
        config: the run; its output folder receives config.yaml, last and best checkpoint, metrics.json.
        resume: go on from the output folder's state.pt.

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
    if not resume and (output / "state.pt").exists():
        expected = f"a new folder, or `--resume {output}` to go on with that run"
        fail("output", f"{output}, which holds a run", expected)
    # the first process draws the people and builds the caches, the others find them
    with accelerator.main_process_first():
        people = load_people(config.data, output)
    if accelerator.is_main_process:
        save_config(config, output / "config.yaml")
    trainer = _build_trainer(config, people, accelerator)
    accelerator.print(f"validation: {len(people.val.persons)} people, boxes: {people.val.boxes}")
    with tf32(config.tf32):
        record = trainer.run(resume=resume)
    accelerator.print(f"{describe(record)}; checkpoints in {output}")
    return record


def distill(config: DistillationConfig, *, resume: bool = False) -> Record:
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
    people = load_people(config.data, Path(config.output))
    spec = student_spec(config, people.joints)
    teacher = load_teacher(config, people.joints, accelerator)
    build_views(config, build_dataset(config, people, spec, teacher), teacher, accelerator)


def _build_trainer(config: TrainingConfig, people: People, accelerator: Accelerator) -> Trainer:
    spec = student_spec(config, people.joints)
    set_seed(config.seed)
    task, teacher = build_task(config, people, spec, accelerator)
    dataset = build_dataset(config, people, spec, teacher)
    loader = build_loader(config, dataset, teacher, accelerator)
    return Trainer(config, task, loader, build_validation(config, people, spec, accelerator), accelerator)
