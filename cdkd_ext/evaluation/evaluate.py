"""Measuring networks: while they train, and from a checkpoint of this code base or of another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from cdkd_ext.checkpoints import load_checkpoint, load_model
from cdkd_ext.checkpoints.native import describes_itself
from cdkd_ext.checkpoints.run_files import check_no_run_file
from cdkd_ext.data import EvaluationSet, PoseDataset
from cdkd_ext.data.config import DataConfig
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import check, fail
from cdkd_ext.evaluation.crop_networks import predict_with
from cdkd_ext.evaluation.metrics import Described, crop_padding, crop_resample, measure, submission
from cdkd_ext.evaluation.progress import people_progress
from cdkd_ext.files import check_writable, write_json
from cdkd_ext.inference import (
    CropNetwork,
    ExportedNetwork,
    ForeignNetwork,
    MappedNetwork,
    Predictions,
    TorchNetwork,
    predict,
)
from cdkd_ext.inference.mapped_network import for_joints
from cdkd_ext.inference.predictor import load_network, runs_as_onnx
from cdkd_ext.joints import JointSet
from cdkd_ext.models import ModelOptions, ModelSpec, PoseNetwork, create_model
from cdkd_ext.teachers.frozen import fast_precision

if TYPE_CHECKING:
    from accelerate import Accelerator


def evaluate_people(
    model: PoseNetwork,
    truth: EvaluationSet,
    *,
    flip_test: bool,
    simcc_score: str = "min",
    accelerator: Accelerator | None = None,
    batch_size: int = 64,
    workers: int = 0,
) -> dict[str, Any]:
    """The metrics of `measure` for a network; with several processes each person is predicted by one and counted once."""
    predictions = predict_people(
        model,
        truth,
        flip_test=flip_test,
        simcc_score=simcc_score,
        accelerator=accelerator,
        batch_size=batch_size,
        workers=workers,
    )
    return measure(truth, predictions, model.spec)


def predict_people(
    model: PoseNetwork,
    truth: EvaluationSet,
    *,
    flip_test: bool,
    simcc_score: str = "min",
    accelerator: Accelerator | None = None,
    batch_size: int = 64,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Predictions for all people in order; with several processes each predicts a share and all get the whole.

    Args:
        model: on the accelerator's device.
        truth: the people.
        flip_test: average with the prediction for the mirrored crop.
        simcc_score: of the two axes' maxima, "min", "max" or "mean".
        accelerator: tells which share this process has; None is one process.
        batch_size: people per forward pass.
        workers: processes that load images.
        progress: called with the number of people that this process has done.
    """
    people = PoseDataset(
        truth.persons,
        truth.joints,
        size=model.spec.input_size,
        padding=crop_padding(truth, model.spec),
        resample=crop_resample(truth, model.spec),
        camera_faults=truth.camera_faults,
        unbiased=model.spec.method.unbiased_crop,
    )
    rank, processes = _share(accelerator)
    predictions = predict(
        model,
        people,
        flip_permutation=truth.joints.flip_permutation if flip_test else None,
        simcc_score=simcc_score,
        batch_size=batch_size,
        workers=workers,
        device=next(model.parameters()).device,
        rank=rank,
        processes=processes,
        progress=progress,
    )
    return _of_all(predictions, processes)


def _share(accelerator: Accelerator | None) -> tuple[int, int]:
    """Number of this process, and how many there are."""
    return (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)


def _of_all(predictions: Predictions, processes: int) -> Predictions:
    """What every process predicted, in the people's order."""
    if processes == 1:
        return predictions
    from accelerate.utils import gather_object

    whole = [torch.cat(parts) for parts in zip(*gather_object([predictions]), strict=True)]
    order = whole[-1].argsort()
    return Predictions(*(values[order] for values in whole))


def evaluate_checkpoint(
    weights: str,
    data: DataConfig,
    *,
    model: ModelOptions | None = None,
    flip_test: bool | None = None,
    simcc_score: Literal["min", "max", "mean"] = "min",
    batch_size: int = 64,
    output: str | None = None,
    results: str | None = None,
    cpu: bool = False,
) -> dict[str, Any]:
    """Measure a checkpoint, or a network in an ONNX file, on the validation people of a data set.

    With several processes all return the same report, and the first one writes the files.

    Args:
        weights: checkpoint of this package or of another, or the folder of a run (its best checkpoint); an ONNX file that
            `cdkd export` or `cdkd adapt` wrote, or an ONNX or YAML file of anybody's network as a teacher's description
            covers it, whose joints are matched by name.
        data: images and annotations. Its `padding` and `resample`, if it has them, count; else the crops are as the
            network was trained. With `camera_faults` the same faults are drawn for everybody who is measured so.
        model: the network, for a checkpoint that does not say what network it is.
        flip_test: average with the prediction for the mirrored crop; None does so, but leaves an exported file as it is.
        simcc_score: of the two axes' maxima; it tells in AP. The published code takes "max" for hard labels, "min"
            for Gaussian ones, as ONNX files have it.
        batch_size: people per forward pass.
        output: also write the metrics to this file, as JSON.
        results: also write the predictions to this file, in COCO's submission format, for COCO-format data with any
            joints; without sigmas there is no OKS-NMS.
        cpu: stay on the CPU where there is a GPU.

    Returns:
        The metrics of `measure`, and "weights", "model", "input_size", "padding", "resample", "camera_faults",
        "flip_test" and "simcc_score"; of a network of other joints also "joints", which come from which.

    Raises:
        InputError: a file is missing or malformed, the joints differ, or the network is not known.
    """
    check(batch_size > 0, "batch_size", batch_size, "a positive number")
    check(data.workers >= 0, "data.workers", data.workers, "zero or more")
    expected = "a metric of labels: an evaluation asks no teacher"
    check(data.metric != "agreement", "data.metric", data.metric, expected)
    for argument, path in (("output", output), ("results", results)):
        if path:
            check_writable(argument, path)
    truth = load_validation(data)
    _check_apart({"output": output, "results": results}, weights, truth.annotation_file)
    if results and data.format == "mpii":
        # MPII's file has no ids of images and categories, which COCO's results consist of
        fail("results", results, "nothing for joints without sigmas in MPII's format, which is not COCO's")
    accelerator = make_accelerator(cpu) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    asked = (_asked_file if runs_as_onnx(weights) else _asked_checkpoint)(
        weights, model, truth.joints, accelerator, flip_test=flip_test, simcc_score=simcc_score, cpu=cpu
    )
    truth = replace(truth, padding=data.padding, resample=data.resample, camera_faults=data.camera_faults)
    main = accelerator is None or accelerator.is_main_process
    showing = people_progress(len(truth.persons), _share(accelerator)[1]) if main else nullcontext(None)
    with showing as progress:
        predictions = asked.predict(truth, batch_size=batch_size, workers=data.workers, progress=progress)
    report = measure(truth, predictions, asked.network) | {
        "weights": weights,
        "input_size": list(asked.network.input_size),
        "padding": crop_padding(truth, asked.network),
        "resample": crop_resample(truth, asked.network),
        "camera_faults": truth.camera_faults,
        **asked.told,
    }
    if main and output:
        write_json(report, output)
    if main and results:
        made = submission(truth, predictions, asked.network)
        # millions of numbers: one a line would be a long file
        write_json(made, results, indent=None)
    return report


@dataclass(frozen=True)
class _Asked:
    """What `evaluate_checkpoint` measures.

    Attributes:
        network: it, or its description.
        predict: all people of an evaluation; every process gets the whole.
        told: what the report tells of it.
    """

    network: Described
    predict: Callable[..., Predictions]
    told: dict[str, Any]


def _asked_checkpoint(
    weights: str,
    given: ModelOptions | None,
    joints: JointSet,
    accelerator: Accelerator | None,
    *,
    flip_test: bool | None,
    simcc_score: str,
    cpu: bool,
) -> _Asked:
    device = accelerator.device if accelerator else _device(cpu)
    network = _load_network(weights, given, joints).to(device)
    flips = flip_test is not False
    told = {
        "model": network.name,
        "flip_test": flips,
        "simcc_score": simcc_score if network.spec.method.has_classes else None,
    }
    own = network.spec.joints
    if own is not None and own.names != joints.names:
        check(
            simcc_score == "min",
            "simcc_score",
            simcc_score,
            "min for a network of other joints than the data's",
        )
        return _asked_by_name(
            TorchNetwork(network, flip_test=flips, device=device), joints, accelerator, told
        )
    predict = partial(
        predict_people, network, flip_test=flips, simcc_score=simcc_score, accelerator=accelerator
    )
    return _Asked(network.spec, predict, told)


def _asked_by_name(
    network: CropNetwork, joints: JointSet, accelerator: Accelerator | None, told: dict[str, Any]
) -> _Asked:
    """A network whose joints are matched with the data's by name where they are others."""
    network = for_joints(network, joints)
    if isinstance(network, MappedNetwork):
        told = {**told, "joints": str(network.joint_map)}

    def predict_share(truth: EvaluationSet, **options: Any) -> Predictions:
        rank, processes = _share(accelerator)
        return _of_all(predict_with(network, truth, rank=rank, processes=processes, **options), processes)

    return _Asked(network, predict_share, told)


def _asked_file(
    weights: str,
    given: ModelOptions | None,
    joints: JointSet,
    accelerator: Accelerator | None,
    *,
    flip_test: bool | None,
    simcc_score: str,
    cpu: bool,
) -> _Asked:
    check(Path(weights).exists(), "weights", weights, "an existing checkpoint or ONNX file")
    check(simcc_score == "min", "simcc_score", simcc_score, "min: an ONNX file decodes by itself")
    device = accelerator.device if accelerator else _device(cpu)
    network = load_network(weights, joints, flip_test=flip_test, device=device)
    told: dict[str, Any] = {"model": Path(weights).stem, "simcc_score": None}
    if isinstance(network, ExportedNetwork):
        spec = ModelSpec.from_dict(network.metadata["model"], weights)
        spec.check_options(given, weights)
        told = {"model": spec.name, "simcc_score": simcc_score if spec.method.has_classes else None}
        told["flip_test"] = network.flip_test
    if isinstance(network, ForeignNetwork):
        if given is not None:
            fail("model", given.name, f"nothing beside {weights}, which says what network it is")
        told |= {"flip_test": network.flip_test, "joints": str(network.joint_map)}
    return _asked_by_name(network, joints, accelerator, told)


def _device(cpu: bool) -> torch.device:
    found = None if cpu else torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else found


def make_accelerator(cpu: bool, precision: str = "no") -> Accelerator:
    """The processes, their device and precision.

    Raises:
        InputError: the device does not have the precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, is_initialized

    # Accelerate keeps the first precision of a process, and refuses others
    if is_initialized() and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    # without a GPU, Accelerate joins several processes only if it is told to stay on the CPU
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu or not torch.accelerator.is_available())
    on_cpu = accelerator.device.type == "cpu"
    check(precision != "fp16" or not on_cpu, "precision", "fp16 on a CPU", "no or bf16, or a GPU")
    if precision == "bf16" and on_cpu and fast_precision(accelerator.device) != "bfloat16":
        accelerator.print(
            "precision bf16: this processor has no instructions for it and takes several times as long as in float32"
        )
    return accelerator


def _check_apart(written: Mapping[str, str | None], weights: str, annotations: Path) -> None:
    """Check that each file to write has a path of its own, and is none that is measured nor one of a run's."""
    taken = {Path(weights).resolve(): "the weights", annotations.resolve(): "the annotations"}
    for argument, path in written.items():
        if not path:
            continue
        file = Path(path).resolve()
        check(file not in taken, argument, f"{path}, {taken.get(file)}", "a file of its own")
        check_no_run_file(argument, path)
        taken[file] = f"that of {argument}"


def check_joints(argument: str, path: str, joints: JointSet | None, expected: JointSet) -> None:
    """Fail unless a checkpoint's joints are the data's."""
    check(
        joints is not None and joints.names == expected.names,
        f"{argument}: joints of {path}",
        ", ".join(joints.names) if joints else "unknown",
        f"the joints of the data ({', '.join(expected.names)})",
    )


def _load_network(weights: str, given: ModelOptions | None, joints: JointSet) -> PoseNetwork:
    path = Path(weights)
    check(path.exists(), "weights", path, "an existing checkpoint")
    if describes_itself(path):
        model = load_model(path)
        check(
            model.spec.joints is not None,
            f"weights: joints of {weights}",
            "unknown",
            "a checkpoint that names them",
        )
        model.spec.check_options(given, weights)
        if given is not None and given.decoding != ModelOptions.decoding:
            # how heatmaps are read is no matter of the weights, but the default is nobody's choice
            model.spec = replace(model.spec, decoding=given.decoding)
        return model
    if given is None:
        expected = "the network (--recipe NAME, or --model.name and the other model options)"
        fail("model", f"nothing, and {path} does not say what network it is", expected)
    model = create_model(given.spec(joints, resample="linear"))
    load_checkpoint(model, path)
    return model
