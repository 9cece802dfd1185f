"""Measuring networks: while they train, and from a checkpoint of this code base or of another."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from cdkd_ext.checkpoints import load_checkpoint, load_model
from cdkd_ext.checkpoints.native import describes_itself
from cdkd_ext.data import EvaluationSet, PoseDataset
from cdkd_ext.data.config import DataConfig
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import check, fail
from cdkd_ext.evaluation.metrics import crop_padding, crop_resample, measure, submission
from cdkd_ext.evaluation.progress import people_progress
from cdkd_ext.files import write_json
from cdkd_ext.inference import Predictions, predict
from cdkd_ext.joints import JointSet
from cdkd_ext.models import ModelOptions, PoseNetwork, create_model

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
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
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
    flip_test: bool = True,
    simcc_score: Literal["min", "max", "mean"] = "min",
    batch_size: int = 64,
    output: str | None = None,
    results: str | None = None,
    cpu: bool = False,
) -> dict[str, Any]:
    """Measure a checkpoint on the validation people of a data set.

    With several processes all return the same report, and the first one writes the files.

    Args:
        weights: checkpoint of this package or of another, or the folder of a run (its best checkpoint).
        data: images and annotations. Its `padding` and `resample`, if it has them, count; else the crops are as the
            network was trained. With `camera_faults` the same faults are drawn for everybody who is measured so.
        model: the network, for a checkpoint that does not say what network it is.
        flip_test: average with the prediction for the mirrored crop.
        simcc_score: of the two axes' maxima; it tells in AP. The published code takes "max" for hard labels, "min"
            for Gaussian ones.
        batch_size: people per forward pass.
        output: also write the metrics to this file, as JSON.
        results: also write the predictions to this file, in COCO's submission format, for COCO-format data with any
            joints; without sigmas there is no OKS-NMS.
        cpu: stay on the CPU where there is a GPU.

    Returns:
        The metrics of `measure`, and "weights", "model", "input_size", "padding", "resample", "camera_faults",
        "flip_test" and "simcc_score".

    Raises:
        InputError: a file is missing or malformed, the joints differ, or the network is not known.
    """
    check(batch_size > 0, "batch_size", batch_size, "a positive number")
    check(data.workers >= 0, "data.workers", data.workers, "zero or more")
    truth = load_validation(data)
    if results and data.format == "mpii":
        # MPII's file has no ids of images and categories, which COCO's results consist of
        fail("results", results, "nothing for joints without sigmas in MPII's format, which is not COCO's")
    accelerator = make_accelerator(cpu) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    network = _load_network(weights, model, truth.joints).to(
        accelerator.device if accelerator else _device(cpu)
    )
    truth = replace(truth, padding=data.padding, resample=data.resample, camera_faults=data.camera_faults)
    main = accelerator is None or accelerator.is_main_process
    processes = accelerator.num_processes if accelerator else 1
    showing = people_progress(len(truth.persons), processes) if main else nullcontext(None)
    with showing as progress:
        predictions = predict_people(
            network,
            truth,
            flip_test=flip_test,
            simcc_score=simcc_score,
            accelerator=accelerator,
            batch_size=batch_size,
            workers=data.workers,
            progress=progress,
        )
    report = measure(truth, predictions, network.spec) | {
        "weights": weights,
        "model": network.name,
        "input_size": list(network.input_size),
        "padding": crop_padding(truth, network.spec),
        "resample": crop_resample(truth, network.spec),
        "camera_faults": truth.camera_faults,
        "flip_test": flip_test,
        "simcc_score": simcc_score if network.spec.method.has_classes else None,
    }
    if main and output:
        write_json(report, output)
    if main and results:
        made = submission(truth, predictions, network.spec)
        # millions of numbers: one a line would be a long file
        write_json(made, results, indent=None)
    return report


def _device(cpu: bool) -> torch.device:
    found = None if cpu else torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else found


def make_accelerator(cpu: bool, precision: str = "no") -> Accelerator:
    """The processes, their device and precision."""
    from accelerate import Accelerator

    # without a GPU, Accelerate joins several processes only if it is told to stay on the CPU
    return Accelerator(mixed_precision=precision, cpu=cpu or not torch.accelerator.is_available())


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
        check_joints("weights", weights, model.spec.joints, joints)
        if given is not None:
            name = model.spec.misfit(given)
            if name is not None:
                expected = f"{getattr(model.spec, name)} as {weights} says, or no model options"
                fail(f"model.{name}", getattr(given, name), expected)
            # how heatmaps are read is no matter of the weights
            model.spec = replace(model.spec, decoding=given.decoding)
        return model
    if given is None:
        expected = "the network (--recipe NAME, or --model.name and the other model options)"
        fail("model", f"nothing, and {path} does not say what network it is", expected)
    model = create_model(given.spec(joints, resample="linear"))
    load_checkpoint(model, path)
    return model
