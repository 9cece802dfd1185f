"""The demonstration's report: tables, curves, and an image of what the networks see and say."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch

from cdkd_ext.demo.arms import ALONE, ARMS, DISTILLED, RECIPE, TENTH_ALONE, TENTH_DISTILLED
from cdkd_ext.demo.images import draw_predictions
from cdkd_ext.demo.measure import Comparison, Measured, Network
from cdkd_ext.files import replacing, write_json
from cdkd_ext.recipes import load_recipe
from cdkd_ext.studies import RunResult
from cdkd_ext.studies.runs import run_history

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_COLORS = {TENTH_ALONE: "tab:gray", TENTH_DISTILLED: "tab:blue", ALONE: "tab:olive", DISTILLED: "tab:red"}
_CHANCE = 0.01


def write_report(output: Path, measured: Measured, *, teacher: Path, seconds: float) -> Path:
    """Write report.md, metrics.json, curves.png and predictions.png; return the report.

    Args:
        output: folder of the runs.
        measured: what they scored.
        teacher: the teacher's file.
        seconds: how long everything took.
    """
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    _draw_curves(output, measured)
    draw_predictions(output, measured, teacher)
    write_json(measured.to_dict() | {"machine": machine, "seconds": seconds}, output / "metrics.json")
    with replacing(output / "report.md") as temporary:
        temporary.write_text("\n".join(_lines(measured, seconds)), encoding="utf-8")
    return output / "report.md"


def _lines(measured: Measured, seconds: float) -> list[str]:
    seeds = len(measured.results[ALONE])
    return [
        "# Low-resolution distillation on drawn people",
        "",
        f"PCKh@0.5 in percent on {measured.teacher_metrics['people']} validation people, last checkpoint, flip test on; "
        f"mean ± standard deviation of {seeds} seeds.",
        "",
        *_network_table(measured),
        "",
        "| difference | points | 95 % interval | p |",
        "|---|---|---|---|",
        *map(_comparison_row, measured.comparisons),
        "",
        *map(_in_words, measured.comparisons),
        "",
        f"The intervals are of a paired bootstrap over people and seeds ({seeds} pairs). All students took as many steps, to "
        f"a whole pass over their people, on the same stored views; {_training_times(measured)}. "
        f"Everything together took {seconds / 60:.1f} minutes.",
        "",
        *_joint_table(measured),
        "",
        "![predictions](predictions.png)",
        "",
        "From top to bottom: people whom the teacher helped most, with a tenth of the labels, to those whom it helped least. "
        "Red rings: joints that are off by more than half a head; numbers: how many joints are not, of those with labels.",
        "",
        "![curves](curves.png)",
        "",
        "The people are drawn, not photographed: the tables show that distillation works here, "
        "and say nothing about photographs.",
        "",
    ]


def _network_table(measured: Measured) -> list[str]:
    return [
        "| network | model | input | parameters | MACs | PCKh@0.5 |",
        "|---|---|---|---|---|---|",
        _network_row("teacher", measured.teacher, [measured.teacher_metrics["pckh"]]),
        *(
            _network_row(f"student, {arm.title}", measured.student, _scores(measured.results[arm]))
            for arm in ARMS
        ),
    ]


def _network_row(name: str, network: Network, scores: Sequence[float]) -> str:
    height, width = network.input_size
    return (
        f"| {name} | {network.model} | {height}×{width} | {network.parameters / 1e6:.2f} M "
        f"| {network.macs / 1e6:.1f} M | {_spread(scores)} |"
    )


def _comparison_row(one: Comparison) -> str:
    estimate = one.estimate
    interval = f"{estimate.low:+.2f} to {estimate.high:+.2f}"
    return f"| {one.title} | {estimate.value:+.2f} | {interval} | {_probability(estimate.p).removeprefix('= ')} |"


def _in_words(one: Comparison) -> str:
    estimate = one.estimate
    size = f"{abs(estimate.value):.1f} points {'more' if estimate.value > 0 else 'less'}"
    if estimate.p is not None and estimate.p < _CHANCE:
        return f"- {one.title}: {size}, beyond chance (p {_probability(estimate.p)})."
    return f"- {one.title}: {size}, which chance alone may give (p {_probability(estimate.p)})."


def _probability(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _training_times(measured: Measured) -> str:
    times = [f"{statistics.fmean(result.seconds for result in measured.results[arm]):.0f} s" for arm in ARMS]
    return f"these took {', '.join(times)} each, in the order of the table"


def _joint_table(measured: Measured) -> list[str]:
    joints = list(measured.teacher_metrics["pckh_per_joint"])
    return [
        "| | " + " | ".join(joints) + " |",
        "|---" * (len(joints) + 1) + "|",
        _joint_row("teacher", [measured.teacher_metrics], joints),
        *(
            _joint_row(f"student, {arm.title}", [one.metrics for one in measured.results[arm]], joints)
            for arm in ARMS
        ),
    ]


def _joint_row(name: str, metrics: Sequence[dict[str, Any]], joints: Sequence[str]) -> str:
    measured = [[one["pckh_per_joint"][joint] for one in metrics] for joint in joints]
    # a joint that no validation person shows was not measured
    cells = [
        "–" if any(value is None or value != value for value in values) else f"{statistics.fmean(values):.1f}"
        for values in measured
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _scores(results: Sequence[RunResult]) -> list[float]:
    return [result.metrics["pckh"] for result in results]


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _draw_curves(output: Path, measured: Measured) -> None:
    # a loss from labels has the name of the head
    label_loss = load_recipe(RECIPE)["model"]["head"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for arm in ARMS:
        for result in measured.results[arm]:
            history = run_history(result.run, output)
            label = arm.title if result is measured.results[arm][0] else None
            # who learns from few people passes over them often
            done = [record["epoch"] / history[-1]["epoch"] for record in history]
            scored = [
                (x, record["pckh"]) for x, record in zip(done, history, strict=True) if "pckh" in record
            ]
            left.plot(*zip(*scored, strict=True), color=_COLORS[arm], marker=".", label=label)
            losses = [record[label_loss] for record in history]
            right.plot(done, losses, color=_COLORS[arm], label=label)
    teacher = measured.teacher_metrics["pckh"]
    left.axhline(teacher, color="tab:green", linestyle="--", label="teacher")
    left.set(xlabel="share of the steps", ylabel="PCKh@0.5 (%)", title="validation")
    right.set(xlabel="share of the steps", ylabel="label loss", title="training")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    with replacing(output / "curves.png") as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
