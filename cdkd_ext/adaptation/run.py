"""From a configuration to an adapted network with its report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from cdkd_ext.adaptation.config import AdaptationConfig
from cdkd_ext.adaptation.measuring import SURE, Labels, Watched
from cdkd_ext.adaptation.networks import AdaptableNetwork, asked, load_adaptable, load_teacher
from cdkd_ext.adaptation.pseudo_labels import PseudoLabels, ask_teacher, unlabelled_person
from cdkd_ext.adaptation.report import AdaptationReport, measure_change, write_report
from cdkd_ext.adaptation.samples import AdaptationSamples, SteadyBatches
from cdkd_ext.adaptation.trainer import AdaptationTask, AdaptationTrainer, check_state
from cdkd_ext.data import Augmentation, EvaluationSet, Person, PoseDataset
from cdkd_ext.data.batches import EpochLoader
from cdkd_ext.data.loading import load_people
from cdkd_ext.errors import check
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.files import remove_leftovers
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers import ForeignTeacher, JointMap, TeacherOptions
from cdkd_ext.teachers.network import CropNetwork
from cdkd_ext.training.files import save_config
from cdkd_ext.training.progress import footage_progress
from cdkd_ext.training.state import FILES, NAME, begins_again, read_run
from cdkd_ext.training.together import train_together

_CHECKED = 8  # crops on which files are compared


def adapt(
    config: AdaptationConfig,
    network: AdaptableNetwork | None = None,
    *,
    resume: bool | str | os.PathLike[str] = False,
) -> AdaptationReport:
    """Train a network to see people from afar, and write it in its own format with a report.

    Args:
        config: the run; its output folder receives the adapted network, report.html, report.json, config.yaml, metrics.json
            and state.pt. Nothing is written before all that can be checked has been.
        network: what to adapt, such as an `AdaptableModule`, in place of `config.model`, which then names the teacher
            that is asked if `config.teacher` is empty.
        resume: the folder of a run to go on with, or true for the output folder.

    Returns:
        The report.

    Raises:
        InputError: the configuration, the data, the network or a file is wrong; names it.
        NonFiniteLossError: the loss became infinite or NaN.
        InterruptedRun: Ctrl-C.

    Example:
        ```python
        from cdkd_ext.adaptation import AdaptationConfig, adapt
        from cdkd_ext.data import DataConfig

        data = DataConfig(images="footage", detector="yolo.onnx")
        report = adapt(AdaptationConfig(model="movenet.onnx", size="24-96", data=data))
        print(report)
        ```
    """
    config.validate()
    accelerator = make_accelerator(config.cpu, config.precision)
    check(
        accelerator.num_processes == 1, "processes", accelerator.num_processes, "one: an adaptation is short"
    )
    set_seed(config.seed)
    network = (network or load_adaptable(config.model, TeacherOptions(preset=config.preset))).to(
        accelerator.device
    )
    config.resolutions().check_below(network.input_size[0])
    unchanged = network.as_saved()
    task = AdaptationTask(network, sigma=config.sigma, keep_outputs=config.keep_outputs, frozen=config.frozen)
    output = Path(config.output)
    state = _state(config, output, resume, task, accelerator)
    teacher, identity = _teacher(config, network, unchanged, accelerator)
    people = _people(config, network, output)
    crops = _first_crops(people.trained)
    network.check(crops)
    accelerator.print(_plan(config, network, teacher, people))
    with footage_progress() as progress:
        folder = Path(config.data.cache) if config.data.cache else output / "teacher"
        ask = partial(ask_teacher, teacher, identity, folder=folder, progress=progress)
        trained, kept_aside, shown = (ask(dataset.persons) for dataset in people.parts())
    seen = (trained.confidence >= SURE).any()
    check(seen, "data", f"{len(trained)} crops in which the teacher is sure of no joint", "images of people")
    remove_leftovers(*(output / name for name in (*FILES, network.file_name)))
    save_config(config, output / "config.yaml")
    adapted = output / network.file_name
    trainer = AdaptationTrainer(
        config,
        task,
        _loader(config, network, task, people.trained, trained, accelerator),
        Watched.of(people.kept_aside, kept_aside),
        accelerator,
        partial(network.save, crops=crops, metadata=_metadata(config)),
    )
    train_together([trainer], [state])
    report = measure_change(
        config,
        (unchanged, network.as_saved(adapted)),
        network.joints,
        Watched.of(people.shown, shown),
        people.labels(network.joints),
        trainer.history,
    )
    write_report(report, output)
    accelerator.print(f"{report}\n{_licence(config, adapted)}")
    return report


@dataclass(frozen=True)
class _People:
    """Who teaches what: people to learn from, some kept aside to measure agreement on, and those of the report."""

    trained: PoseDataset
    kept_aside: PoseDataset
    shown: PoseDataset
    truth: EvaluationSet | None
    chosen: list[int]

    def parts(self) -> tuple[PoseDataset, PoseDataset, PoseDataset]:
        """The three."""
        return self.trained, self.kept_aside, self.shown

    def labels(self, joints: JointSet) -> Labels | None:
        """The annotations of the report's people, if they have any, for a network's joints."""
        truth = self.truth
        if truth is None:
            return None
        persons = [truth.persons[index] for index in self.chosen]
        return Labels(persons, truth.joints, JointMap.by_name(truth.joints, joints), truth.metric)


def _people(config: AdaptationConfig, network: AdaptableNetwork, output: Path) -> _People:
    with footage_progress() as progress:
        people = load_people(config.data, output, teacher_joints=lambda: network.joints, progress=progress)
    nothing = np.zeros((len(network.joints), 2), np.float32)
    everybody = [*people.train, *(people.footage.persons if people.footage else ())]
    check(len(everybody) > 1, "data", f"{len(everybody)} people", "at least two: one is kept aside")
    persons = [unlabelled_person(person, nothing) for person in everybody]
    order = np.random.default_rng([config.seed, 3]).permutation(len(persons)).tolist()
    count = max(1, min(config.watched_people, len(persons) // 10))
    # in their order, so that neighbours share a decoded image
    aside, trained = ([persons[index] for index in sorted(part)] for part in (order[:count], order[count:]))
    shown, chosen = aside, list(range(len(aside)))
    if people.val is not None:
        # raises where no joint of the annotations is one of the network's
        JointMap.by_name(people.val.joints, network.joints)
        chosen = _spread(len(people.val.persons), config.report_people)
        shown = [unlabelled_person(people.val.persons[index], nothing) for index in chosen]
    described, data = network.description, config.data
    padding = described.padding if data.padding is None else data.padding

    def cropped(persons: Sequence[Person], augmentation: Augmentation | None = None) -> PoseDataset:
        return PoseDataset(
            persons,
            network.joints,
            size=network.input_size,
            augmentation=augmentation,
            seed=config.seed,
            labelled_fraction=0,
            padding=padding,
            resample=data.resample or described.resample,
            camera_faults=data.camera_faults if augmentation else 0.0,
        )

    augmented = cropped(trained, config.data.augmentation)
    return _People(augmented, cropped(aside), cropped(shown), people.val, chosen)


def _spread(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` of `count` people, evenly."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(wanted, count))})


def _teacher(
    config: AdaptationConfig, network: AdaptableNetwork, unchanged: CropNetwork, accelerator: Accelerator
) -> tuple[ForeignTeacher, str]:
    """Who teaches, for the joints of the network."""
    options = config.teacher_options
    if config.teacher:
        return load_teacher(config.teacher, network.joints, options, accelerator.device)
    return asked(unchanged, network.fingerprint(), network.joints, options)


def _first_crops(dataset: PoseDataset) -> Tensor:
    """Crops (n, 3, H, W) to compare files on."""
    return torch.stack([dataset[index]["image"] for index in range(min(_CHECKED, len(dataset)))])


def _loader(
    config: AdaptationConfig,
    network: AdaptableNetwork,
    task: AdaptationTask,
    dataset: PoseDataset,
    labels: PseudoLabels,
    accelerator: Accelerator,
) -> EpochLoader:
    samples = AdaptationSamples(dataset, labels, network.joints, config.resolutions(), full=task.needs_full)
    order = SteadyBatches(range(len(dataset)), config.batch_size, config.check_every, seed=config.seed)
    on_gpu = accelerator.device.type == "cuda"
    return EpochLoader(samples, order, workers=config.data.workers, pin_memory=on_gpu)


def _state(
    config: AdaptationConfig,
    output: Path,
    resume: bool | str | os.PathLike[str],
    task: AdaptationTask,
    accelerator: Accelerator,
) -> dict[str, Any] | None:
    """The state to go on from, None to begin; refuses to write over another run."""
    if not resume:
        held = (output / NAME).exists()
        check(not held, "output", f"{output}, which holds a run", f"a new folder, or `--resume {output}`")
        return None
    source = output if resume is True else Path(resume)
    expected = f"{output}, the folder of the run itself"
    check(source.resolve() == output.resolve(), "resume", source, expected)
    if not source.exists() or begins_again(source):
        accelerator.print(f"resume: {source} has no checkpoint yet: it begins with the first step")
        return None
    state = read_run(source, config.epochs)
    check_state(state, source, task)
    return state


def _plan(
    config: AdaptationConfig, network: AdaptableNetwork, teacher: ForeignTeacher, people: _People
) -> str:
    learning = sum(value.numel() for value in network.learning().values() if value.requires_grad)
    who = config.teacher or "the network itself"
    return "\n".join(
        [
            f"network: {config.model}, {learning / 1e6:.2f} M weights that learn",
            f"teacher: {who} at full resolution; joints: {teacher.joint_map}",
            f"people: {len(people.trained)}, and {len(people.kept_aside)} kept aside",
        ]
    )


def _metadata(config: AdaptationConfig) -> dict[str, str]:
    """What the adapted file says about itself."""
    told = {"model": Path(config.model).name, "size": config.size, "steps": config.steps}
    return {"cdkd_ext.adapted": json.dumps(told)}


def _licence(config: AdaptationConfig, adapted: Path) -> str:
    return (
        f"adapted network: {adapted}, a changed copy of {config.model}: "
        "it stays under the licence of that network's weights"
    )
