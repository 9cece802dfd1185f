"""What trained networks, and the one that taught them, say of the same people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import DataConfig, EvaluationSet
from cdkd_ext.data.json_object import JsonObject
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import InputError, check, fail
from cdkd_ext.evaluation.crop_networks import predict_with
from cdkd_ext.inference import CropNetwork, ForeignNetwork, MappedNetwork, TorchNetwork
from cdkd_ext.inference.mapped_network import for_joints
from cdkd_ext.models import count_macs, count_parameters
from cdkd_ext.resampling import Resample
from cdkd_ext.teachers import TeacherFile
from cdkd_ext.training.files import data_of_run, moved_data, read_config

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Predicted:
    """What a network says of the people of a report.

    Attributes:
        name: what the page calls it.
        keypoints: float32 (N, J, 2) in pixels of the images; NaN for joints that it does not know.
        scores: float32 (N, J).
        network: one line about it.
        input_size: (height, width) of its crops.
        padding: how much larger than the box they are.
        resample: how they are made of larger regions.
        unbiased_crop: whether the centres of their corner pixels lie on the region's corners.
        score_threshold: joints below it are better not drawn.
        history: of a training, a mapping per epoch.
        options: of a training, by name.
    """

    name: str
    keypoints: Floats
    scores: Floats
    network: str
    input_size: tuple[int, int]
    padding: float
    resample: Resample
    unbiased_crop: bool
    score_threshold: float
    history: Sequence[dict[str, Any]] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(J,), the joints that the network knows."""
        return np.asarray(np.isfinite(self.keypoints).all(-1).any(0))


@dataclass(frozen=True)
class RunsOnPeople:
    """Networks and the people that they were asked about.

    Attributes:
        truth: the people.
        everybody: how many people the annotations have.
        runs: the trained networks.
        teacher: the network that taught them, where there is one that can be asked; else None.
        left_out: why the teacher is not there, in words; empty if it is, or if there was none.
    """

    truth: EvaluationSet
    everybody: int
    runs: list[Predicted]
    teacher: Predicted | None = None
    left_out: str = ""

    @property
    def predicted(self) -> list[Predicted]:
        """The runs, and the teacher behind them."""
        return self.runs if self.teacher is None else [*self.runs, self.teacher]


def predict_runs(
    runs: Sequence[str], *, data: DataConfig | None = None, people: int = 1000, cpu: bool = False
) -> RunsOnPeople:
    """Ask the networks of runs, and their teacher, about the validation people of the first run.

    Args:
        runs: folders of runs; joints that the people's labels do not have are matched with these by name.
        data: other people with labels; None takes those of the first run.
        people: at most so many, spread evenly over the validation people.
        cpu: stay on the CPU where there is a GPU.

    Raises:
        InputError: a run cannot be read, the first one has no validation people, or no joint matches.
    """
    check(runs, "runs", "none", "the folder of at least one run")
    check(people > 0, "people", people, "a positive number")
    for run in runs:
        check((Path(run) / "config.yaml").is_file(), "runs", run, "the folder of a run, with its config.yaml")
    data = _people(runs[0]) if data is None or data == DataConfig() else moved_data(data, runs[0])
    # a detector's boxes have no labels to compare with
    truth = load_validation(replace(data, boxes=None, min_box_score=0.0) if data.boxes else data)
    check(truth.metric != "none", f"{runs[0]}: data.metric", "none", "people with labels")
    everybody = len(truth.persons)
    chosen = sorted({int(i) for i in np.linspace(0, everybody - 1, min(people, everybody))})
    truth = replace(truth, persons=[truth.persons[index] for index in chosen], padding=None, resample=None)
    found = None if cpu else torch.accelerator.current_accelerator(check_available=True)
    device = found or torch.device("cpu")
    names = _names(runs)
    asked = [_run(Path(run), name, truth, device) for run, name in zip(runs, names, strict=True)]
    teacher, left_out = _teacher(asked, truth, device)
    return RunsOnPeople(truth, everybody, asked, teacher, left_out)


def _people(run: str) -> DataConfig:
    """The data of a run, where it was trained on people with labels."""
    data = data_of_run(run)
    if data.root is None:
        fail(
            "runs", f"{run}, a run of footage alone", "a run whose people have labels, first, or --data.root"
        )
    expected = f"the folder of {run}'s people, which its config.yaml names, or --data.root"
    check(
        Path(data.root).is_dir(), "data.root", f"{data.root} in {Path.cwd()}, where there is none", expected
    )
    return data


def _names(runs: Sequence[str]) -> list[str]:
    """The folders' names; with those above them where two are alike."""
    names = [Path(run).absolute().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _run(folder: Path, name: str, truth: EvaluationSet, device: torch.device) -> Predicted:
    options = read_config(folder)
    network = for_joints(
        TorchNetwork(load_model(folder), flip_test=options.get("flip_test", True), device=device),
        truth.joints,
    )
    metrics = folder / "metrics.json"
    history = JsonObject.read(metrics).values("epochs") if metrics.is_file() else []
    return _asked(name, network, truth, history, options)


def _asked(
    name: str,
    network: CropNetwork,
    truth: EvaluationSet,
    history: Sequence[dict[str, Any]] = (),
    options: dict[str, Any] | None = None,
) -> Predicted:
    predictions = predict_with(network, truth)
    return Predicted(
        name,
        predictions.keypoints.numpy(),
        predictions.scores.numpy(),
        _described(network),
        network.input_size,
        network.padding,
        network.resample,
        network.unbiased_crop,
        network.score_threshold,
        history,
        options or {},
    )


def _described(network: CropNetwork) -> str:
    height, width = network.input_size
    size = f"{height}×{width} pixels"
    if isinstance(network, MappedNetwork):
        return f"{_described(network.network)}; joints by name: {network.joint_map}"
    if not isinstance(network, TorchNetwork):
        return size
    model = network.model
    parameters, macs = count_parameters(model), count_macs(model)
    return (
        f"{model.name}, {size}, {parameters / 1e6:.2f} M parameters, {macs / 1e6:.1f} M multiply-accumulates"
    )


def _teacher(
    runs: Sequence[Predicted], truth: EvaluationSet, device: torch.device
) -> tuple[Predicted | None, str]:
    """The first teacher among the runs, or why it cannot be asked."""
    options = next((run.options for run in runs if run.options.get("teacher")), None)
    if options is None:
        return None, ""
    path, preset = options["teacher"], (options.get("teacher_options") or {}).get("preset")
    try:
        file = TeacherFile(path)
        network: CropNetwork
        if file.is_foreign:
            network = ForeignNetwork(path, truth.joints, device=device, preset=preset)
        else:
            network = for_joints(TorchNetwork(file.network(), device=device), truth.joints)
    except (InputError, ModuleNotFoundError) as error:
        return None, str(error)
    asked = _asked("teacher", network, truth)
    unknown = [name for name, there in zip(truth.joints.names, asked.known, strict=True) if not there]
    lacks = f"; it does not know {', '.join(unknown)}" if unknown else ""
    return replace(asked, network=f"{Path(path).name}: {asked.network}{lacks}"), ""
