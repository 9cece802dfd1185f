"""What the runs of a study measured, and which joints of which person each network found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import EvaluationSet
from cdkd_ext.errors import check
from cdkd_ext.evaluation import JointHits, joint_hits
from cdkd_ext.evaluation.evaluate import predict_people
from cdkd_ext.models import count_macs, count_parameters
from cdkd_ext.studies.runs import StudyRun, run_history, run_metrics
from cdkd_ext.studies.statistics import RowHits
from cdkd_ext.training.files import read_config

_FILE = "hits.npz"


@dataclass(frozen=True)
class RunResult:
    """What a finished run measured.

    Attributes:
        run: which one.
        metrics: the last epoch's record of a training, or the report of an evaluation or an adaptation.
        epochs: of a training; 0 for other commands.
        seconds: of its steps; 0 for other commands.
        parameters: of the network of a training; 0 for other commands.
        macs: multiply-accumulates for a crop; 0 for other commands.
        hits: which joints its last checkpoint finds; None where nobody was to be measured or for other commands.
    """

    run: StudyRun
    metrics: dict[str, Any]
    epochs: int = 0
    seconds: float = 0.0
    parameters: int = 0
    macs: int = 0
    hits: JointHits | None = None


def collect(
    runs: Iterable[StudyRun], folder: Path, truth: EvaluationSet | None = None, *, workers: int = 0
) -> list[RunResult]:
    """Read what the finished runs of a study measured; the others are left out.

    Given people, the last checkpoint of each training is measured on them as the run's validation does it, once: which joints
    it found is kept in the run's folder, in ``hits.npz``, and read from there as long as network and people are the same.

    Args:
        runs: of the study.
        folder: of the study.
        truth: people with head lengths, such as `cdkd_ext.data.loading.load_validation` reads.
        workers: processes that load images.

    Raises:
        InputError: a file is damaged, or joints differ.
    """
    results = []
    for run in runs:
        metrics = run_metrics(run, folder)
        if metrics is None:
            continue
        if run.kind not in ("train", "distill"):
            results.append(RunResult(run, metrics))
            continue
        own = folder / run.name
        network = load_model(own / "last.safetensors")
        history = run_history(run, folder)
        results.append(
            RunResult(
                run,
                metrics,
                epochs=len(history),
                seconds=sum(record["seconds"] for record in history),
                parameters=count_parameters(network),
                macs=count_macs(network),
                hits=None if truth is None else _hits(own, truth, workers),
            )
        )
    return results


def row_hits(results: Sequence[RunResult], joints: Sequence[str] | None = None) -> RowHits | None:
    """The results of one row as what statistics compare; None where none of them was measured on people.

    Args:
        results: of runs that differ in the seed alone, measured on the same people.
        joints: names of those that count; None counts all that PCKh's mean counts.
    """
    measured = sorted((result for result in results if result.hits is not None), key=_seed)
    found = [result.hits.per_person(joints) for result in measured if result.hits is not None]
    if not found:
        return None
    seeds = tuple(_seed(result) for result in measured if result.run.seed is not None)
    check(len(seeds) in (0, len(found)), "results", "runs with and without seeds", "runs of one row")
    return RowHits(np.stack([right for right, _ in found]), found[0][1], seeds)


def _seed(result: RunResult) -> int:
    return -1 if result.run.seed is None else result.run.seed


def _hits(own: Path, truth: EvaluationSet, workers: int) -> JointHits:
    """Which joints a run's last checkpoint finds, from its folder or measured now."""
    weights = own / "last.safetensors"
    identity = f"{hashlib.sha256(weights.read_bytes()).hexdigest()} {people_identity(truth)}"
    found = JointHits.load(own / _FILE, identity)
    if found is not None:
        return found
    options = read_config(own)
    predictions = predict_people(
        load_model(weights),
        truth,
        flip_test=options.get("flip_test", True),
        simcc_score=options.get("simcc_score", "min"),
        workers=workers,
    )
    hits = joint_hits(predictions.keypoints.numpy(), truth.persons, truth.joints)
    hits.save(own / _FILE, identity)
    return hits


def people_identity(truth: EvaluationSet) -> str:
    """What tells people, their annotations and the making of their crops from others."""
    digest = hashlib.sha256(" ".join(truth.joints.names).encode())
    for person in truth.persons:
        digest.update(f"{person.image_path.name} {person.head_size}".encode())
        for values in (person.box, person.keypoints, person.annotated):
            digest.update(np.ascontiguousarray(values, np.float64).tobytes())
    digest.update(f"{truth.padding} {truth.resample} {truth.camera_faults}".encode())
    return digest.hexdigest()
