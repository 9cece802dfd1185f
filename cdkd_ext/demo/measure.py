"""What the demonstration measured: each kind of student with its spread, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import EvaluationSet
from cdkd_ext.demo.arms import ALONE, ARMS, DISTILLED, TENTH_ALONE, TENTH_DISTILLED, Arm
from cdkd_ext.evaluation import evaluate_people
from cdkd_ext.models import PoseNetwork, count_macs, count_parameters
from cdkd_ext.studies import Estimate, RowHits, RunResult, StudyRun, collect, difference, row_hits

# what is compared with what
_COMPARISONS = (
    ("a tenth of the labels: with CDKD, against alone", TENTH_DISTILLED, TENTH_ALONE),
    ("all labels: with CDKD, against alone", DISTILLED, ALONE),
    ("a tenth of the labels with CDKD, against all labels alone", TENTH_DISTILLED, ALONE),
)


@dataclass(frozen=True)
class Network:
    """A network of the report and what it costs.

    Attributes:
        model: its name.
        input_size: (height, width) of its crops.
        parameters: how many.
        macs: multiply-accumulates for a crop.
    """

    model: str
    input_size: tuple[int, int]
    parameters: int
    macs: int

    @classmethod
    def of(cls, network: PoseNetwork) -> Network:
        """The description of a network."""
        return cls(network.name, network.input_size, count_parameters(network), count_macs(network))


@dataclass(frozen=True)
class Comparison:
    """A difference between two kinds of student.

    Attributes:
        title: what is compared with what.
        first: the kind that is compared.
        second: the kind that it is compared with.
        estimate: by how many points of PCKh the first is above the second.
    """

    title: str
    first: Arm
    second: Arm
    estimate: Estimate


@dataclass(frozen=True)
class Measured:
    """What everybody scored.

    Attributes:
        truth: the people.
        teacher: the network that taught.
        student: the network that was trained.
        teacher_metrics: of `evaluation.measure`.
        results: of each kind of student, by seed.
        comparisons: the differences.
    """

    truth: EvaluationSet
    teacher: Network
    student: Network
    teacher_metrics: dict[str, Any]
    results: dict[Arm, list[RunResult]]
    comparisons: list[Comparison]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return {
            "teacher": vars(self.teacher) | _plain(self.teacher_metrics),
            "student": vars(self.student),
            **{
                arm.name: [_plain(result.metrics) | {"seconds": result.seconds} for result in results]
                for arm, results in self.results.items()
            },
            "comparisons": [
                {"first": one.first.name, "second": one.second.name, **vars(one.estimate)}
                for one in self.comparisons
            ],
        }


def measure_students(runs: Sequence[StudyRun], output: Path, truth: EvaluationSet, teacher: Path) -> Measured:
    """Measure the last checkpoint of every student, and the teacher, on the same people.

    Args:
        runs: of all students, finished.
        output: folder of the runs.
        truth: the people, with head lengths.
        teacher: the teacher's file.
    """
    collected = collect(runs, output, truth)
    results = {arm: [result for result in collected if result.run.row == arm.name] for arm in ARMS}
    hits = {arm: _hits(results[arm]) for arm in ARMS}
    comparisons = [
        Comparison(title, first, second, difference(hits[second], hits[first]))
        for title, first, second in _COMPARISONS
    ]
    network = load_model(teacher).eval()
    student = load_model(output / runs[0].name / "last.safetensors")
    metrics = evaluate_people(network, truth, flip_test=True)
    return Measured(truth, Network.of(network), Network.of(student), metrics, results, comparisons)


def _hits(results: Sequence[RunResult]) -> RowHits:
    hits = row_hits(results)
    assert hits is not None, "people were given"
    return hits


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "pckh": metrics["pckh"],
        "per_joint": metrics["pckh_per_joint"],
        "people": metrics["people"],
    }
