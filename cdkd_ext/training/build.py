"""From a configuration and its people to the parts of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from cdkd_ext.checkpoints import load_checkpoint, load_model
from cdkd_ext.checkpoints.native import describes_itself, read_spec
from cdkd_ext.data import EvaluationSet, PoseDataset
from cdkd_ext.data.batches import EpochBatches, EpochLoader
from cdkd_ext.data.cached_views import FixedViews, build_student_views
from cdkd_ext.data.loading import People, training_set
from cdkd_ext.data.mirrored_views import MirroredViews
from cdkd_ext.data.mixed_batches import MixedBatches
from cdkd_ext.data.sharded_views import ShardedViews, build_sharded_views
from cdkd_ext.data.shared_samples import SharedBatches, SharedImages, check_alike
from cdkd_ext.data.stored_crops import StoredCrops, build_stored_crops
from cdkd_ext.distillation import TeacherOutput, mirror_output
from cdkd_ext.distillation.mirroring import check_mirrors
from cdkd_ext.errors import check, fail
from cdkd_ext.evaluation import evaluate_people
from cdkd_ext.evaluation.evaluate import check_joints
from cdkd_ext.joints import JointSet
from cdkd_ext.models import ModelSpec, PoseNetwork, create_model
from cdkd_ext.models.spec import DEFAULT_PADDING
from cdkd_ext.resampling import DEFAULT_RESAMPLE
from cdkd_ext.teachers import (
    AskedOnce,
    CompactOutput,
    CompactOutputs,
    ForeignTeacher,
    FrozenTeacher,
    StoredOutputs,
    TaughtSamples,
    build_compact_outputs,
    build_teacher_outputs,
)
from cdkd_ext.training.agreement import Agreement, build_agreement
from cdkd_ext.training.config import TrainingConfig
from cdkd_ext.training.progress import footage_progress
from cdkd_ext.training.task import DistillationTask

ViewTeacher = FrozenTeacher | ForeignTeacher
AnyTeacher = ViewTeacher | AskedOnce


@dataclass(frozen=True)
class Validation:
    """Measures a student on the validation people, in every process of a run.

    Args:
        people: whom to predict, and what the predictions are measured against.
        config: the run; how to predict.
        accelerator: the processes.
    """

    people: EvaluationSet
    config: TrainingConfig
    accelerator: Accelerator

    @property
    def metric(self) -> str:
        """The metric that decides which checkpoint is best."""
        return self.people.metric

    def __call__(self, student: PoseNetwork) -> dict[str, Any]:
        """Return the metrics of a student on the accelerator's device."""
        return evaluate_people(
            student,
            self.people,
            flip_test=self.config.flip_test,
            simcc_score=self.config.simcc_score,
            accelerator=self.accelerator,
            workers=self.config.data.workers,
        )


class LastIsBest:
    """Stands for the validation of a run without validation people: the later checkpoint is the better one."""

    metric = "epoch"

    def __call__(self, student: PoseNetwork) -> dict[str, Any]:
        """Return no metrics: every record holds its epoch."""
        return {}


def teacher_joints(config: TrainingConfig) -> JointSet | None:
    """The joints that the run's teacher names, if it has one that does.

    Raises:
        InputError: its file cannot be read.
    """
    file = config.teacher_file()
    return None if file is None else file.joints()


def student_spec(config: TrainingConfig, joints: JointSet, run: Path | None = None) -> ModelSpec:
    """The description of the student, with what its crops are like.

    What is not configured of them is as in the run that goes on, else as of the weights; the padding else the teacher's.

    Args:
        config: the run.
        joints: of the people.
        run: the folder of the run that goes on, if one does.

    Raises:
        InputError: an option of the network is out of range, or a checkpoint cannot be read.
    """
    weights, teacher = config.model.weights, config.teacher_file()
    started = None
    if run is not None and (run / "last.safetensors").is_file():
        started = read_spec(run / "last.safetensors", "resume")
    elif weights and describes_itself(weights):
        started = load_model(weights, "model.weights").spec
    padding, resample = config.data.padding, config.data.resample
    if padding is None and started is not None:
        padding = started.padding
    if padding is None:
        padding = DEFAULT_PADDING if teacher is None else teacher.padding()
    if resample is None:
        resample = DEFAULT_RESAMPLE if started is None else started.resample
    return config.model.spec(joints, padding, resample)


def build_task(
    config: TrainingConfig,
    people: People,
    spec: ModelSpec,
    accelerator: Accelerator,
    shared: AnyTeacher | None = None,
    resumed: bool = False,
) -> tuple[DistillationTask, AnyTeacher | None]:
    """Create the student with its losses, and load the teacher if there is one.

    The numbers drawn for the student's fresh weights come first, those for the projectors last.

    Args:
        config: the run.
        people: whose joints are those of the networks.
        spec: of the student.
        accelerator: the devices.
        shared: a teacher that was loaded from the same file, to be asked in place of another copy.
        resumed: the weights will be those of a run that goes on, whatever it began with.

    Raises:
        InputError: a checkpoint cannot be read, its joints are not the data's, or the networks do not fit.
    """
    student = create_model(spec)
    if config.model.weights and not resumed:
        report = load_checkpoint(student, config.model.weights, backbone_only=config.model.backbone_only)
        accelerator.print(report)
    teacher = _for_another(shared, spec)
    if shared is None or isinstance(shared, FrozenTeacher):
        # loaded in any case: what it draws, the projectors are drawn after
        loaded = load_teacher(config, spec, people.joints, accelerator)
        teacher = shared or loaded
    label_loss = config.label_loss.build(student)
    if teacher is None:
        return DistillationTask(student, label_loss=label_loss), None
    terms = config.terms(student, teacher)
    asked = None if isinstance(teacher, AskedOnce) else teacher
    learns = asked is not None or terms["cca"] is not None
    check(learns, "cca.enabled", "false, for a teacher that is asked about people", "true")
    return DistillationTask(student, asked, label_loss=label_loss, **terms), teacher


def _for_another(teacher: AnyTeacher | None, student: ModelSpec) -> AnyTeacher | None:
    """A teacher that was loaded for one student, for another.

    Raises:
        InputError: it says the same to all, and draws it for the first one's classes.
    """
    places = student.method.places(student)
    if isinstance(teacher, AskedOnce):
        return teacher.for_student(student.input_size, places)
    if isinstance(teacher, ForeignTeacher) and teacher.draws:
        got = f"Gaussians over {teacher.drawn_for} classes beside a student of {places}"
        expected = "`ask: people`, or students of as many classes each"
        check(places in (None, teacher.drawn_for), "teacher_options", got, expected)
    return teacher


def load_teacher(
    config: TrainingConfig, student: ModelSpec, joints: JointSet, accelerator: Accelerator
) -> AnyTeacher | None:
    """Load the run's teacher onto the accelerator's device; None where there is none.

    Joints that are not the student's are matched by name, and the matches printed.

    Raises:
        InputError: the file cannot be read, or its joints are not `joints` and cannot be matched with them.
    """
    file = config.teacher_file()
    if file is None:
        return None
    places = student.method.places(student)
    once = file.options.ask == "people"
    # what is asked about people serves students of all sizes
    teacher = file.load(accelerator.device, joints, student_bins=None if once else places)
    if isinstance(teacher, ForeignTeacher):
        accelerator.print(f"joints of {file.path}: {teacher.joint_map}")
        return AskedOnce(teacher, student.input_size, places) if once else teacher
    # before it is asked: what is stored tells which outputs there are
    teacher.tokens = config.uses_tokens()
    check_joints("teacher", file.path, teacher.spec.joints, joints)
    got = f"people, for a checkpoint with the head {teacher.spec.head}"
    check(not once, "teacher_options.ask", got, "views, or a checkpoint with simcc or heatmap")
    return teacher


def load_view_teacher(
    config: TrainingConfig, student: ModelSpec, joints: JointSet, accelerator: Accelerator
) -> ViewTeacher:
    """`load_teacher`, of a configuration that has one, whose outputs for views are stored.

    Raises:
        InputError: as `load_teacher`, or it is asked about people.
    """
    teacher = load_teacher(config, student, joints, accelerator)
    assert teacher is not None
    if isinstance(teacher, AskedOnce):
        fail("teacher_options.ask", "people, of whom keypoints are kept", "views, whose outputs are stored")
    return teacher


def build_dataset(
    config: TrainingConfig, people: People, spec: ModelSpec, teacher: AnyTeacher | None
) -> PoseDataset:
    """The training people, cropped for the student and for the teacher if there is one that is asked about views."""
    seen = None if teacher is None or isinstance(teacher, AskedOnce) else teacher.teacher_spec
    return training_set(
        people,
        config.data,
        spec.input_size,
        padding=spec.padding,
        # fixed views are shared by runs of different seeds
        seed=config.seed if config.data.views == 0 else 0,
        teacher_size=None if seen is None else seen.input_size,
        resample=spec.resample,
        teacher_resample=DEFAULT_RESAMPLE if seen is None else seen.resample,
        unbiased=spec.method.unbiased_crop,
        teacher_unbiased=seen is not None and seen.unbiased_crop,
    )


def ask_about_people(
    config: TrainingConfig, dataset: PoseDataset, teacher: AskedOnce, accelerator: Accelerator
) -> None:
    """Ask a teacher about the training people, where it was not asked before.

    Raises:
        InputError: an image cannot be read, or the teacher's outputs are not as described.
    """
    file = config.teacher_file()
    assert file is not None
    with accelerator.main_process_first(), footage_progress() as progress:
        teacher.ask(file.identity(teacher.network), dataset.persons, cache_folder(config), progress=progress)


def build_views(
    config: TrainingConfig,
    dataset: PoseDataset,
    teacher: ViewTeacher | None,
    accelerator: Accelerator,
    features: bool = False,
) -> FixedViews:
    """Store the run's fixed views and its teacher's outputs for them, where they are not stored yet; see `build_samples`."""
    cache, views, workers = cache_folder(config), config.data.views, config.data.workers
    file = config.teacher_file()
    if config.data.teacher_cache == "compact" or config.data.view_images == "jpeg":
        return _build_sharded_views(config, dataset, teacher, accelerator, features)
    with accelerator.main_process_first():
        stored = build_student_views(dataset, views, cache, workers=workers)
        if file is None or teacher is None:
            return FixedViews(stored)
        identity = file.identity(teacher)
        outputs = build_teacher_outputs(dataset, views, cache, teacher, identity, workers=workers)
    return FixedViews(stored, StoredOutputs(outputs))


def _build_sharded_views(
    config: TrainingConfig,
    dataset: PoseDataset,
    teacher: ViewTeacher | None,
    accelerator: Accelerator,
    features: bool,
) -> FixedViews:
    """As `build_views`, in shards: all processes of the run fill them together."""
    cache, views, workers = cache_folder(config), config.data.views, config.data.workers
    images = config.data.view_images
    stored = ShardedViews(build_sharded_views(dataset, views, cache, images=images, workers=workers))
    file = config.teacher_file()
    if file is None or teacher is None:
        return FixedViews(stored)
    identity = file.identity(teacher)
    if config.data.teacher_cache == "compact":
        features = features or config.uses_features()
        outputs = build_compact_outputs(
            dataset, views, cache, teacher, identity, features=features, workers=workers
        )
        return FixedViews(stored, CompactOutputs(outputs))
    with accelerator.main_process_first():
        outputs = build_teacher_outputs(dataset, views, cache, teacher, identity, workers=workers)
    return FixedViews(stored, StoredOutputs(outputs))


def build_samples(
    config: TrainingConfig,
    dataset: PoseDataset,
    teacher: ViewTeacher | None,
    accelerator: Accelerator,
    shared: ViewTeacher | None = None,
    features: bool = False,
) -> PoseDataset | FixedViews | StoredCrops:
    """Where the run's samples come from: fixed views, stored crops, or the images themselves.

    Args:
        config: the run.
        dataset: its people.
        teacher: whose outputs for fixed views are stored with them.
        accelerator: the processes.
        shared: whose outputs for fixed views come from another student's samples.
        features: keep the teacher's feature maps for another student.
    """
    if config.data.views:
        views = build_views(config, dataset, teacher, accelerator, features)
        return (
            views.with_mirrored(_mirrored(config, dataset, teacher or shared))
            if config.data.mirror_views
            else views
        )
    if config.data.stored_crops:
        with accelerator.main_process_first():
            folder = build_stored_crops(dataset, cache_folder(config), workers=config.data.workers)
        return StoredCrops(dataset, folder)
    return dataset


def _mirrored(config: TrainingConfig, dataset: PoseDataset, teacher: ViewTeacher | None) -> MirroredViews:
    """How the run's fixed views are mirrored, and what its teacher says of them.

    Raises:
        InputError: what is learnt from the teacher does not mirror.
    """
    order, width = dataset.joints.flip_permutation, dataset.size[1]
    if teacher is None:
        return MirroredViews(config.data.views, order)
    spec = teacher.teacher_spec
    check_mirrors(spec, features=config.uses_features())
    unbiased = dataset.unbiased or dataset.teacher_unbiased
    tokens = isinstance(teacher, FrozenTeacher) and teacher.tokens
    got = "true for unbiased crops beside a teacher" if unbiased else "true beside a teacher's tokens"
    check(not unbiased and not tokens, "data.mirror_views", got, "false")

    def output(stored: TeacherOutput | CompactOutput, mirrored: Tensor) -> TeacherOutput:
        return mirror_output(stored.widened(), mirrored, order, spec, width)

    return MirroredViews(config.data.views, order, output)


def cache_folder(config: TrainingConfig) -> Path:
    """Where a run's stored crops, fixed views and teacher outputs lie."""
    return Path(config.data.cache) if config.data.cache else Path(config.output) / "views"


def choose_people(config: TrainingConfig, dataset: PoseDataset, teacher: AnyTeacher | None) -> list[int]:
    """Indices of the people to train on: without a teacher there is nothing to learn from a person without labels.

    Raises:
        InputError: there is neither a teacher nor anybody with labels.
    """
    chosen = [index for index in range(len(dataset)) if teacher is not None or dataset.labelled[index]]
    fraction = config.data.labelled_fraction
    check(len(chosen) > 0, "data.labelled_fraction", fraction, "labels to train a student alone")
    return chosen


def check_batch(config: TrainingConfig, student: PoseNetwork, people: int) -> None:
    """Check that batch norm has more than one value per channel in a step.

    Args:
        config: the run.
        student: the network that is trained.
        people: how many people there are to train on.

    Raises:
        InputError: a step sees one person, whose crop the network reduces to one pixel.
    """
    if min(config.batch_size, people) > 1 or _fewest_values(student) > 1:
        return
    why = "batch norm has one value per channel with one person per step"
    expected = f"at least 2, or a larger model.input_size than {tuple(config.model.input_size)}: {why}"
    check(config.batch_size > 1, "batch_size", config.batch_size, expected)
    check(config.data.labelled_fraction == 1, "data.labelled_fraction: labelled people", people, expected)
    fail("data.train: people to train on", people, expected)


def _fewest_values(network: PoseNetwork) -> int:
    """The fewest values per channel that a batch norm of the network sees for one crop."""
    seen: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
        for module in network.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    training = network.training
    # in evaluation mode neither the running statistics nor one value are a matter
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *network.input_size, dtype=torch.uint8))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return min(seen, default=2)


def build_loader(
    configs: Sequence[TrainingConfig],
    datasets: Sequence[PoseDataset],
    order: EpochBatches,
    teachers: Sequence[AnyTeacher | None],
    accelerator: Accelerator,
) -> EpochLoader:
    """This process's batches in their order, of fixed views where the run has them.

    Args:
        configs: of the run, or of several that share all that concerns the data.
        datasets: of the runs.
        order: of the batches.
        teachers: of the runs; the first one's outputs for fixed views are stored.
        accelerator: the processes.
    """
    config, teacher = configs[0], teachers[0]
    on_gpu = accelerator.device.type == "cuda"
    # stored views are read faster than another process could send them; but this one has a GPU to keep busy
    workers = config.data.workers if on_gpu or not config.data.views else 0
    if isinstance(teacher, AskedOnce):
        samples: Any = _shared_samples(configs, datasets, None, accelerator)
        ask_about_people(config, datasets[0], teacher, accelerator)
        samples = TaughtSamples(samples, *(own for own in teachers if isinstance(own, AskedOnce)))
    else:
        samples = _shared_samples(configs, datasets, teacher, accelerator)
    return EpochLoader(samples, order, workers=workers, pin_memory=on_gpu)


def _shared_samples(
    configs: Sequence[TrainingConfig],
    datasets: Sequence[PoseDataset],
    teacher: ViewTeacher | None,
    accelerator: Accelerator,
) -> PoseDataset | FixedViews | StoredCrops | SharedImages | SharedBatches:
    """The samples of one run, or those of several together."""
    data = configs[0].data
    if len(configs) == 1:
        return build_samples(configs[0], datasets[0], teacher, accelerator)
    if not data.views and not data.stored_crops:
        return SharedImages(datasets)
    check_alike(datasets)
    # the first one's teacher outputs are for all; without a folder of its own the cache is the first run's
    cached = [replace(config, output=configs[0].output) for config in configs]
    features = any(config.uses_features() for config in configs)
    teachers = [teacher, *([None] * (len(datasets) - 1))]
    return SharedBatches(
        [
            build_samples(config, dataset, own, accelerator, teacher, features)
            for config, dataset, own in zip(cached, datasets, teachers, strict=True)
        ]
    )


def build_order(
    config: TrainingConfig, dataset: PoseDataset, chosen: Sequence[int], accelerator: Accelerator
) -> EpochBatches:
    """Which of the chosen people form which batch of this process.

    Raises:
        InputError: the share of people without labels cannot be had.
    """
    share, size = config.data.unlabelled_share, config.batch_size
    options = {
        "seed": config.seed,
        "views": config.data.views * (2 if config.data.mirror_views else 1),
        "rank": accelerator.process_index,
        "processes": accelerator.num_processes,
    }
    if share is None:
        return EpochBatches(chosen, size, **options)
    labelled = [index for index in chosen if dataset.labelled[index]]
    unlabelled = [index for index in chosen if not dataset.labelled[index]]
    return MixedBatches(labelled, unlabelled, size, share=share, **options)


def build_validation(
    config: TrainingConfig,
    people: People,
    spec: ModelSpec,
    accelerator: Accelerator,
    teacher: AnyTeacher | None = None,
    folder: Path | None = None,
) -> Validation | Agreement | LastIsBest:
    """What measures the student, on crops as in training.

    Args:
        config: the run.
        people: of `watch_people`.
        spec: of the student.
        accelerator: the processes.
        teacher: whom agreement is with.
        folder: receives what the teacher says of the watched people; None takes the run's `cache_folder`.

    Raises:
        InputError: see `build_agreement`.
    """
    if people.watched and teacher is not None:
        folder = folder or cache_folder(config)
        asked = teacher.network if isinstance(teacher, AskedOnce) else teacher
        return build_agreement(config, people, spec, asked, folder, accelerator) or LastIsBest()
    if people.val is None:
        return LastIsBest()
    val = replace(people.val, padding=spec.padding, resample=spec.resample)
    return Validation(val, config, accelerator)
