"""The demonstration's report: one table, curves, and an image of what the networks see and say."""

from __future__ import annotations

import json
import platform
import statistics
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import Person, PoseDataset, load_coco_persons
from cdkd_ext.files import replacing, write_json
from cdkd_ext.images import Image
from cdkd_ext.inference import draw_pose, enlarge, enlarge_points, predict_crops, save_image, tile
from cdkd_ext.joints import JointSet
from cdkd_ext.models import PoseNetwork, count_macs, count_parameters

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_TILE = (224, 224)
_PEOPLE = 6


def write_report(output: Path, people: Path, *, seeds: int, seconds: float) -> Path:
    """Read the runs' metrics and write report.md, metrics.json, curves.png and predictions.png; return the report.

    Args:
        output: folder of the runs `teacher`, `alone_S` and `distilled_S`.
        people: the data set, with its folder val/.
        seeds: number of students of each kind.
        seconds: how long everything took.
    """
    results = _collect(output, seeds)
    results["seconds"] = seconds
    _draw_curves(output, seeds)
    _draw_predictions(output, people)
    write_json(results, output / "metrics.json")
    with replacing(output / "report.md") as temporary:
        temporary.write_text(_markdown(results))
    return output / "report.md"


def _history(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "metrics.json").read_text())["epochs"]


def _collect(output: Path, seeds: int) -> dict[str, Any]:
    def last(name: str) -> dict[str, Any]:
        record = _history(output / name)[-1]
        seconds = sum(epoch["seconds"] for epoch in _history(output / name))
        return {
            "pckh": record["pckh"],
            "per_joint": record["pckh_per_joint"],
            "people": record["people"],
            "seconds": seconds,
        }

    def cost(name: str) -> dict[str, Any]:
        model = load_model(output / name / "last.safetensors")
        return {
            "model": model.name,
            "input_size": model.input_size,
            "parameters": count_parameters(model),
            "macs": count_macs(model),
        }

    return {
        "teacher": last("teacher") | cost("teacher"),
        "student": cost("alone_0"),
        "alone": [last(f"alone_{seed}") for seed in range(seeds)],
        "distilled": [last(f"distilled_{seed}") for seed in range(seeds)],
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
    }


def _markdown(results: dict[str, Any]) -> str:
    teacher, student = results["teacher"], results["student"]
    alone = [run["pckh"] for run in results["alone"]]
    distilled = [run["pckh"] for run in results["distilled"]]
    differences = [after - before for before, after in zip(alone, distilled, strict=True)]

    def row(name: str, values: list[float], cost: dict[str, Any]) -> str:
        height, width = cost["input_size"]
        return (
            f"| {name} | {cost['model']} | {height}×{width} | {cost['parameters'] / 1e6:.2f} M "
            f"| {cost['macs'] / 1e6:.1f} M | {_spread(values)} |"
        )

    joints = list(teacher["per_joint"])
    lines = [
        "# Low-resolution distillation on synthetic people",
        "",
        f"PCKh@0.5 in percent on {teacher['people']} validation people, last checkpoint, flip test on; "
        f"mean ± standard deviation of {len(alone)} seeds.",
        "",
        "| network | model | input | parameters | MACs | PCKh@0.5 |",
        "|---|---|---|---|---|---|",
        row("teacher", [teacher["pckh"]], teacher),
        row("student alone", alone, student),
        row("student + CDKD", distilled, student),
        f"| difference | | | | | {_spread(differences, sign=True)} |",
        "",
        f"Both kinds of student saw the same views, in the same order, for the same number of steps. A student alone "
        f"trained {_mean(results['alone'], 'seconds'):.0f} s, a distilled one {_mean(results['distilled'], 'seconds'):.0f} s "
        f"(the teacher's outputs were computed once, before). Everything together took {results['seconds'] / 60:.1f} minutes.",
        "",
        "| | " + " | ".join(joints) + " |",
        "|---" * (len(joints) + 1) + "|",
        _joint_row("teacher", [teacher], joints),
        _joint_row("student alone", results["alone"], joints),
        _joint_row("student + CDKD", results["distilled"], joints),
        "",
        "![predictions](predictions.png)",
        "",
        "![curves](curves.png)",
        "",
        "The people are drawn, not photographed: the table shows that distillation works here, "
        "and says nothing about photographs.",
        "",
    ]
    return "\n".join(lines)


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.fmean(run[name] for run in runs)


def _spread(values: list[float], *, sign: bool = False) -> str:
    mean = f"{statistics.fmean(values):+.2f}" if sign else f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _joint_row(name: str, runs: list[dict[str, Any]], joints: list[str]) -> str:
    measured = [[run["per_joint"][joint] for run in runs] for joint in joints]
    # a joint that no validation person shows was not measured
    cells = ["–" if None in values else f"{statistics.fmean(values):.1f}" for values in measured]
    return f"| {name} | " + " | ".join(cells) + " |"


def _draw_curves(output: Path, seeds: int) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for arm, color in (("alone", "tab:gray"), ("distilled", "tab:blue")):
        for seed in range(seeds):
            history = _history(output / f"{arm}_{seed}")
            label = {"alone": "student alone", "distilled": "student + CDKD"}[arm] if seed == 0 else None
            measured = [record for record in history if "pckh" in record]
            left.plot(
                [record["epoch"] for record in measured],
                [record["pckh"] for record in measured],
                color=color,
                marker=".",
                label=label,
            )
            right.plot(
                [record["epoch"] for record in history],
                [record["simcc"] for record in history],
                color=color,
                label=label,
            )
    teacher = _history(output / "teacher")[-1]["pckh"]
    left.axhline(teacher, color="tab:green", linestyle="--", label="teacher")
    left.set(xlabel="epoch", ylabel="PCKh@0.5 (%)", title="validation")
    right.set(xlabel="epoch", ylabel="label loss (nats per joint)", title="training")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(output / "curves.png") as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _draw_predictions(output: Path, people: Path) -> None:
    """One row per person: the crop with its labels, the teacher's pose, the student's own view, both students' poses."""
    persons, joints = load_coco_persons(people / "val/annotations.json", people / "val/images")
    names = ("teacher", "alone_0", "distilled_0")
    models = {name: load_model(output / name / "last.safetensors").eval() for name in names}
    rows = [_prediction_row(person, joints, models) for person in persons[:_PEOPLE]]
    titles = ("person and labels", "teacher", "what the student sees", "student alone", "student + CDKD")
    save_image(tile(rows, titles), output / "predictions.png")


def _prediction_row(person: Person, joints: JointSet, models: dict[str, PoseNetwork]) -> list[Image]:
    views = {
        name: PoseDataset([person], joints, size=model.input_size, resample=model.spec.resample)[0]["image"]
        for name, model in models.items()
    }
    full = PoseDataset([person], joints, size=_TILE)[0]
    crop = _to_image(full["image"])
    student_view = enlarge(_to_image(views["alone_0"]), _TILE)
    row = [draw_pose(crop, full["keypoints"].numpy(), joints, drawn=full["annotated"].numpy() > 0)]
    for name, model in models.items():
        permutation = torch.tensor(joints.flip_permutation)
        points = predict_crops(model, views[name][None], flip_permutation=permutation)[0][0].numpy()
        enlarged = enlarge_points(points, model.input_size, _TILE)
        row.append(draw_pose(crop if name == "teacher" else student_view, enlarged, joints))
        if name == "teacher":
            row.append(student_view)
    return row


def _to_image(tensor: torch.Tensor) -> Image:
    """(3, h, w) uint8 tensor to an (h, w, 3) array."""
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
