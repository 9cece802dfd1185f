"""The page itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from markupsafe import Markup

from cdkd_ext.data import DataConfig
from cdkd_ext.errors import check
from cdkd_ext.files import check_writable, replacing
from cdkd_ext.reporting.accuracy import Accuracy, Yardstick
from cdkd_ext.reporting.cases import chosen_cases, draw_case
from cdkd_ext.reporting.charts import COLORS, Line, line_chart
from cdkd_ext.reporting.collect import Predicted, RunsOnPeople, predict_runs

_HISTORIES = (
    ("pckh", "Accuracy in training", "PCKh@0.5, percent"),
    ("AP", "Accuracy in training", "AP"),
    ("total", "Loss in training", "loss"),
)
_ORDERS = {"worst": "Worst first", "best": "Best first", "spread": "From best to worst"}


@dataclass(frozen=True)
class _Chart:
    title: str
    svg: Markup


def write_report(
    runs: Sequence[str],
    output: str = "report.html",
    *,
    data: DataConfig | None = None,
    people: int = 1000,
    cases: int = 12,
    cpu: bool = False,
) -> Path:
    """Write one self-contained HTML file about trained networks and the one that taught them.

    It shows what the networks see and say beside the labels, accuracy by joint, threshold and size of the person, how the
    training went, and how the runs are configured. It asks no server for anything.

    Args:
        runs: folders of runs; joints that the people's labels do not have are matched with these by name.
        output: the file.
        data: people with labels to ask about; None takes the validation people of the first run.
        people: at most so many, spread evenly over the validation people.
        cases: how many people to show in each order.
        cpu: stay on the CPU where there is a GPU.

    Raises:
        InputError: a run cannot be read, has no validation people, or an option is out of range.
    """
    check(output.lower().endswith((".html", ".htm")), "output", output, "the name of an HTML file")
    check(cases > 0, "cases", cases, "a positive number")
    check_writable("output", output)
    text = render(predict_runs(runs, data=data, people=people, cpu=cpu), cases=cases)
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(output)


def render(found: RunsOnPeople, *, cases: int = 12) -> str:
    """Return the page as text.

    Args:
        found: the networks and what they say.
        cases: how many people to show in each order.
    """
    yardstick = Yardstick.of(found.truth)
    accuracies = [Accuracy(found.truth, yardstick, predicted) for predicted in found.predicted]
    errors = accuracies[0].errors()
    chosen = chosen_cases(errors, cases)
    drawn = {
        index: draw_case(found, index, _note(found, index, errors, yardstick))
        for index in {index for order in chosen.values() for index in order}
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        files("cdkd_ext.reporting").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    return template.render(
        title=" · ".join(run.name for run in found.runs),
        found=found,
        yardstick=yardstick,
        colors=COLORS,
        summary=_summary(found, accuracies),
        joints=_joint_table(accuracies),
        charts=_charts(found, yardstick, accuracies),
        orders=[(name, _ORDERS[name], [drawn[index] for index in order]) for name, order in chosen.items()],
        keys=[(f"run-{number}", run.name) for number, run in enumerate(found.runs)]
        + ([("teacher", "teacher")] if found.teacher is not None else [])
        + [("labels", "labels")],
        differences=_differences(found.runs),
        configurations=[(run.name, yaml.safe_dump(run.options, sort_keys=False)) for run in found.runs],
    )


def _note(found: RunsOnPeople, index: int, errors: Any, yardstick: Yardstick) -> str:
    side = max(found.truth.persons[index].box[2:])
    return (
        f"mean distance {errors[index]:.2f} {yardstick.unit} (each at most 1), {side:.0f} pixels tall or wide"
    )


def _number(value: float, digits: int = 1) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def _summary(found: RunsOnPeople, accuracies: Sequence[Accuracy]) -> list[tuple[str, str, str, str]]:
    """Name, network, accuracy, and how long the training took, of each network."""
    rows = []
    for predicted, accuracy in zip(found.predicted, accuracies, strict=True):
        seconds = sum(epoch.get("seconds", 0.0) for epoch in predicted.history)
        epochs = len(predicted.history)
        trained = f"{epochs} epoch{'s' * (epochs != 1)}, {seconds / 60:.1f} min" if epochs else "–"
        rows.append((predicted.name, predicted.network, _number(accuracy.mean(), 2), trained))
    return rows


def _joint_table(accuracies: Sequence[Accuracy]) -> list[tuple[str, list[str]]]:
    """A row for each kind of joint, and the mean."""
    tables = [accuracy.per_joint() for accuracy in accuracies]
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = [(name, [_number(table.get(name, float("nan"))) for table in tables]) for name in names]
    return [*rows, ("mean", [_number(accuracy.mean(), 2) for accuracy in accuracies])]


def _charts(found: RunsOnPeople, yardstick: Yardstick, accuracies: Sequence[Accuracy]) -> list[_Chart]:
    named = list(zip(found.predicted, accuracies, range(len(accuracies)), strict=True))
    curves = [Line(one.name, *accuracy.curve(), color) for one, accuracy, color in named]
    sizes = [Line(one.name, *accuracy.by_size(), color) for one, accuracy, color in named]
    charts = [
        _chart(
            "Accuracy by threshold",
            curves,
            x_label=f"threshold, {yardstick.unit}",
            y_label="keypoints within it, percent",
            mark=yardstick.threshold,
        ),
        _chart(
            "Accuracy by size of the person",
            sizes,
            x_label="longer side of the box in the image, pixels (medians of fifths of the people)",
            y_label=f"{yardstick.metric}, percent",
        ),
    ]
    for key, title, unit in _HISTORIES:
        lines = [_history(run, key, number) for number, run in enumerate(found.runs)]
        lines = [line for line in lines if line.x]
        if lines:
            loss = key == "total"
            charts.append(_chart(title, lines, x_label="epoch", y_label=unit, from_zero=not loss, whole=True))
    return charts


def _history(run: Predicted, key: str, color: int) -> Line:
    there = [epoch for epoch in run.history if epoch.get(key) is not None]
    return Line(run.name, [epoch["epoch"] for epoch in there], [epoch[key] for epoch in there], color)


def _chart(title: str, lines: Sequence[Line], **options: Any) -> _Chart:
    return _Chart(title, Markup(line_chart(lines, title=title, **options)))


def _differences(runs: Sequence[Predicted]) -> list[tuple[str, list[str]]]:
    """The options that the runs do not share, and their values."""
    flat = [_flattened(run.options) for run in runs]
    names = list(dict.fromkeys(name for options in flat for name in options))
    rows = [(name, [str(options.get(name, "–")) for options in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flattened(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _flattened(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
