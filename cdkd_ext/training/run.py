"""The two training commands: from a configuration to a finished run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed

from cdkd_ext.checkpoints import load_checkpoint
from cdkd_ext.checkpoints.native import file_hash, load_model
from cdkd_ext.data import PoseDataset
from cdkd_ext.data.batches import EpochBatches, make_loader
from cdkd_ext.data.cached_views import FixedViews, build_student_views, build_teacher_outputs
from cdkd_ext.data.loading import People, load_people, training_set
from cdkd_ext.distill import CCA, ETHT, SAPE, AdversarialScalar, DistillationLoss, HeatmapLoss, SimCCLoss
from cdkd_ext.errors import check, fail
from cdkd_ext.evaluation import describe
from cdkd_ext.evaluation.evaluate import check_joints, evaluate_people, make_accelerator
from cdkd_ext.files import replacing
from cdkd_ext.models import PoseNetwork, create_model
from cdkd_ext.teachers.frozen import FrozenTeacher
from cdkd_ext.training.config import DistillationConfig, LabelConfig, TrainingConfig, check_config
from cdkd_ext.training.loop import Record, Trainer
from cdkd_ext.training.task import PoseTask


def train(config: TrainingConfig, *, resume: bool = False) -> Record:
    """Train a teacher, a plain student or, given a `DistillationConfig`, a distilled student.

    Args:
        config: the run; its output folder receives config.yaml, last and best checkpoint, metrics.json.
        resume: go on from the output folder's state.pt.

    Returns:
        The record of the last epoch: losses, and the metrics of the validation.

    Raises:
        InputError: the configuration, the data or a checkpoint is wrong; names the file and the field.
        NonFiniteLossError: a term of the loss became infinite or NaN.
        InterruptedRun: Ctrl-C.
    """
    check_config(config)
    output = Path(config.output)
    accelerator = make_accelerator(config.cpu, config.precision)
    if not resume and (output / "state.pt").exists():
        fail(
            "output",
            f"{output}, which holds a run",
            f"a new folder, or `--resume {output}` to go on with that run",
        )
    # the first process draws the figures and builds the caches, the others find them
    with accelerator.main_process_first():
        people = load_people(config.data, output)
    if accelerator.is_main_process:
        save_config(config, output / "config.yaml")
    set_seed(config.seed)
    student = create_model(config.model.spec(people.joints, config.data.padding))
    if config.model.weights:
        report = load_checkpoint(student, config.model.weights, backbone_only=config.model.backbone_only)
        accelerator.print(report)
    teacher = _load_teacher(config, people, accelerator) if isinstance(config, DistillationConfig) else None
    task = PoseTask(student, _build_loss(config, student, teacher.model if teacher else None))
    dataset = _dataset(config, people, teacher)
    samples = _fixed_views(config, dataset, teacher, accelerator) if config.data.views else dataset
    # without a teacher there is nothing to learn from a person without labels
    chosen = (
        range(len(dataset))
        if teacher
        else [index for index in range(len(dataset)) if dataset.labelled[index]]
    )
    check(
        len(chosen) > 0,
        "data.labelled_fraction",
        config.data.labelled_fraction,
        "labels to train a student alone",
    )
    sampler = EpochBatches(
        chosen,
        config.batch_size,
        seed=config.seed,
        views=config.data.views,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    accelerator.print(f"validation: {len(people.val.persons)} people, boxes: {people.val.boxes}")
    trainer = Trainer(
        config,
        task,
        make_loader(samples, sampler, workers=config.data.workers),
        sampler,
        lambda task: evaluate_people(
            task.student,
            people.val,
            flip_test=config.flip_test,
            simcc_score=config.simcc_score,
            accelerator=accelerator,
            workers=config.data.workers,
        ),
        accelerator,
        metric=people.val.metric,
        teacher=teacher if config.data.views == 0 else None,
        temperature_rate=config.temperature.learning_rate if isinstance(config, DistillationConfig) else 0.0,
    )
    record = trainer.run(resume=resume)
    accelerator.print(f"{describe(record)}; checkpoints in {output}")
    return record


def _load_teacher(config: DistillationConfig, people: People, accelerator: Accelerator) -> FrozenTeacher:
    model = load_model(config.teacher, "teacher")
    check_joints("teacher", config.teacher, model.spec.joints, people.joints)
    return FrozenTeacher(model, accelerator.device, config.teacher_precision)


def _build_loss(
    config: TrainingConfig, student: PoseNetwork, teacher: PoseNetwork | None
) -> DistillationLoss:
    labels = _build_label_loss(config.labels, student)
    if teacher is None or not isinstance(config, DistillationConfig):
        return DistillationLoss(labels)
    _check_pair(config, student, teacher)
    sape = None
    if config.sape.enabled:
        sape = SAPE(
            student.feature_channels,
            student.feature_size,
            teacher.feature_size,
            num_projectors=config.sape.num_projectors,
            kernels=config.sape.kernels,
            use_sau=config.sape.use_sau,
            activation=config.sape.activation,
            center_teacher=config.sape.center_teacher,
            mode=config.sape.mode,
        )
    temperature = config.temperature
    tau: float | ETHT = temperature.tau
    if temperature.adversarial:
        tau = ETHT(
            temperature.tau_min,
            temperature.tau_max,
            temperature.theta,
            ramp=temperature.ramp,
            detach_scale=temperature.detach_scale,
        )
    alpha: float | AdversarialScalar = config.sape.weight
    beta: float | AdversarialScalar = config.cca.weight
    if temperature.learn_weights:
        alpha, beta = map(AdversarialScalar.between_half_and_twice, (config.sape.weight, config.cca.weight))
    return DistillationLoss(
        labels,
        sape=sape,
        cca=CCA(phase=config.cca.phase) if config.cca.enabled else None,
        tau=tau,
        alpha=alpha,
        beta=beta,
        visibility_weights=config.cca.visibility,
    )


def _check_pair(config: DistillationConfig, student: PoseNetwork, teacher: PoseNetwork) -> None:
    heads = {"student": student.head, "teacher": teacher.head}
    for which, head in heads.items():
        check(
            head == "simcc" or not config.cca.enabled,
            "cca.enabled",
            f"true for a {which} with heatmaps",
            "false: CCA aligns SimCC classes, and SAPE works alone",
        )
    check(
        student.feature_channels == teacher.feature_channels or not config.sape.enabled,
        "sape.enabled",
        f"true for {student.feature_channels} channels of the student and {teacher.feature_channels} of the teacher",
        "as many channels of the last feature on both sides, or false",
    )


def _build_label_loss(config: LabelConfig, student: PoseNetwork) -> SimCCLoss | HeatmapLoss:
    if student.head == "heatmap":
        return HeatmapLoss(
            student.input_size,
            sigma=config.heatmap_sigma,
            quantized=student.decoding == "quarter",
            scale=config.scale,
        )
    return SimCCLoss(
        student.split_ratio,
        kind=config.kind,
        sigma=config.sigma,
        label_smoothing=config.label_smoothing,
        reduction=config.reduction,
        scale=config.scale,
    )


def prepare_views(config: TrainingConfig) -> None:
    """Store the fixed views of a run, and its teacher's outputs, without training.

    Raises:
        InputError: as `train` does; also when `data.views` is 0.
    """
    check_config(config)
    check(config.data.views > 0, "data.views", config.data.views, "a positive number of views to store")
    accelerator = make_accelerator(config.cpu)
    people = load_people(config.data, Path(config.output))
    teacher = _load_teacher(config, people, accelerator) if isinstance(config, DistillationConfig) else None
    _fixed_views(config, _dataset(config, people, teacher), teacher, accelerator)


def save_config(config: TrainingConfig, path: Path) -> None:
    """Write a configuration as YAML that `--config` reads."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False))


def _dataset(config: TrainingConfig, people: People, teacher: FrozenTeacher | None) -> PoseDataset:
    return training_set(
        people,
        config.data,
        config.model.input_size,
        # fixed views are shared by runs of different seeds
        seed=config.seed if config.data.views == 0 else 0,
        teacher_size=teacher.model.input_size if teacher else None,
    )


def _fixed_views(
    config: TrainingConfig, dataset: PoseDataset, teacher: FrozenTeacher | None, accelerator: Accelerator
) -> FixedViews:
    cache = Path(config.data.cache) if config.data.cache else Path(config.output) / "views"
    views, workers = config.data.views, config.data.workers
    with accelerator.main_process_first():
        folders = [build_student_views(dataset, views, cache, workers=workers)]
        if teacher is not None and isinstance(config, DistillationConfig):
            identity = file_hash(config.teacher)
            folders.append(
                build_teacher_outputs(
                    dataset, views, cache, teacher, identity, accelerator.device, workers=workers
                )
            )
    return FixedViews(folders)


def _plain(value: Any) -> Any:
    """Tuples become lists, which YAML can read back safely."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
