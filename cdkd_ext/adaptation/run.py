"""From a configuration to an adapted network with its report."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from cdkd_ext.adaptation.config import AdaptationConfig
from cdkd_ext.adaptation.measuring import Watched
from cdkd_ext.adaptation.networks import AdaptableNetwork, asked, load_adaptable, load_teacher
from cdkd_ext.adaptation.people import AdaptationPeople, load_adaptation_people
from cdkd_ext.adaptation.report import AdaptationReport, measure_change, write_report
from cdkd_ext.adaptation.samples import AdaptationSamples, SteadyBatches
from cdkd_ext.adaptation.trainer import AdaptationTask, AdaptationTrainer, check_state
from cdkd_ext.checkpoints.run_files import RUN_FILES, STATE
from cdkd_ext.data import PoseDataset
from cdkd_ext.data.batches import EpochLoader
from cdkd_ext.errors import check
from cdkd_ext.evaluation.agreement import SURE
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.files import remove_leftovers
from cdkd_ext.teachers import ForeignTeacher, TeacherOptions
from cdkd_ext.teachers.foreign import counted_confidence
from cdkd_ext.teachers.network import CropNetwork
from cdkd_ext.teachers.pseudo_labels import PseudoLabels, ask_teacher
from cdkd_ext.training.files import save_config
from cdkd_ext.training.progress import footage_progress
from cdkd_ext.training.state import begins_again, read_run
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
        network: what to adapt in place of a file, such as an `AdaptableModule`; `config.model` is then its name alone.
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
    processes = accelerator.num_processes
    check(processes == 1, "processes", processes, "one: an adaptation is short")
    set_seed(config.seed)
    check(
        network is None or config.input_size is None,
        "input_size",
        config.input_size,
        "nothing for a network of one's own",
    )
    options = TeacherOptions(preset=config.preset)
    there = network is not None or Path(config.model).exists()
    check(there, "model", config.model, "an existing file")
    network = network or load_adaptable(config.model, options, config.input_size)
    network = network.to(accelerator.device)
    config.resolutions().check_below(network.input_size[0])
    unchanged = network.as_saved()
    task = AdaptationTask(network, sigma=config.sigma, keep_outputs=config.keep_outputs, frozen=config.frozen)
    output = Path(config.output)
    state = _state(config, output, resume, task, accelerator)
    teacher, identity = _teacher(config, network, unchanged, accelerator)
    people = load_adaptation_people(config, network, output)
    crops = _first_crops(people.trained)
    network.check(crops)
    accelerator.print(_plan(config, network, teacher, people))
    trained, kept_aside, shown = _said(config, teacher, identity, people)
    remove_leftovers(*(output / name for name in (*RUN_FILES, network.file_name)))
    save_config(config, output / "config.yaml")
    save = partial(network.save, crops=crops, metadata=_metadata(config))
    trainer = AdaptationTrainer(
        config,
        task,
        _loader(config, network, task, people.trained, trained, accelerator),
        Watched.of(people.kept_aside, kept_aside),
        accelerator,
        save,
    )
    train_together([trainer], [state])
    adapted = output / network.file_name
    if config.keep == "last":
        save(adapted)
    networks = (unchanged, network.as_saved(adapted))
    watched, labels = Watched.of(people.shown, shown), people.labels(network.joints)
    accelerator.print(f"measuring {len(watched)} people before and after")
    with footage_progress() as progress:
        report = measure_change(config, networks, network.joints, watched, labels, trainer.history, progress)
    write_report(report, output)
    accelerator.print(f"{report}\n{_licence(config, adapted)}")
    return report


def _said(
    config: AdaptationConfig, teacher: ForeignTeacher, identity: str, people: AdaptationPeople
) -> list[PseudoLabels]:
    """What the teacher says of each part of the people.

    Raises:
        InputError: it is sure of nothing.
    """
    folder = Path(config.data.cache) if config.data.cache else Path(config.output) / "teacher"
    with footage_progress() as progress:
        said = [
            _counted(ask_teacher(teacher, identity, dataset.persons, folder, progress=progress), config)
            for dataset in people.parts()
        ]
    # without a joint to agree on, no network would be kept
    for part, what in zip(said[:2], ("crops", "crops kept aside"), strict=True):
        sure = (part.confidence >= SURE).any()
        check(
            sure, "data", f"{len(part)} {what} in which the teacher is sure of no joint", "images of people"
        )
    return said


def _counted(said: PseudoLabels, config: AdaptationConfig) -> PseudoLabels:
    """What a teacher says, weighted as the options tell."""
    confidence = torch.from_numpy(said.confidence)
    counted = counted_confidence(confidence, config.teacher_options)
    return replace(said, confidence=counted.to(confidence.dtype).numpy())


def _teacher(
    config: AdaptationConfig, network: AdaptableNetwork, unchanged: CropNetwork, accelerator: Accelerator
) -> tuple[ForeignTeacher, str]:
    """Who teaches, for the joints of the network."""
    options = config.teacher_options
    if config.teacher:
        return load_teacher(config.teacher, network.joints, options, accelerator.device)
    if config.input_size is not None:
        # the file as it is, at its own full resolution
        options = replace(options, preset=config.preset)
        return load_teacher(config.model, network.joints, options, accelerator.device)
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
    order = SteadyBatches(range(len(dataset)), config.batch_size, config.portion, seed=config.seed)
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
        held = (output / STATE).exists()
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
    config: AdaptationConfig, network: AdaptableNetwork, teacher: ForeignTeacher, people: AdaptationPeople
) -> str:
    learning = sum(value.numel() for value in network.learning().values() if value.requires_grad)
    who = config.teacher or "the network itself"
    height, width = network.input_size
    return "\n".join(
        [
            f"network: {config.model}, {learning / 1e6:.2f} M weights that learn; "
            f"input {height}x{width}, {network.macs() / 1e6:.0f} M multiply-accumulates",
            f"teacher: {who} at full resolution; joints: {teacher.joint_map}",
            f"people: {len(people.trained)}, and {len(people.kept_aside)} kept aside",
        ]
    )


def _metadata(config: AdaptationConfig) -> dict[str, str]:
    """What the adapted file says about itself."""
    told = {"model": Path(config.model).name, "size": config.size, "steps": config.steps}
    if config.input_size is not None:
        told["input_size"] = config.input_size
    return {"cdkd_ext.adapted": json.dumps(told)}


def _licence(config: AdaptationConfig, adapted: Path) -> str:
    return (
        f"adapted network: {adapted}, a changed copy of {config.model}: "
        "it stays under the licence of that network's weights"
    )
