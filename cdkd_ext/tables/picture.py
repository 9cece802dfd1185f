"""Accuracy against cost, as the paper's Figure 2: its figures on the left, what was measured on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from cdkd_ext.tables.costs import Costs
from cdkd_ext.tables.measured import Measured
from cdkd_ext.tables.rows import PaperTable, Row

# of Okabe and Ito, which people with any colour vision tell apart
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#444444")
_MARKERS = {32: "o", 64: "s"}
_FILLINGS = ("full", "none")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
}


class _Point(NamedTuple):
    method: str
    input: int
    cost: float
    value: float
    low: float
    high: float


class _Panel(NamedTuple):
    title: str
    cost: str
    metric: str
    points: list[_Point]


def draw_table(
    table: PaperTable,
    rows: Sequence[Row],
    costs: Mapping[str, Costs],
    measured: Mapping[str, Measured],
    path: str | Path,
) -> None:
    """Write a PNG.

    Args:
        table: with the paper's figures.
        rows: of the table.
        costs: by row, for those whose cost the paper does not print.
        measured: by row; with none there is one panel.
        path: where to.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    printed = {"mean": "PCKh@0.5", "AP": "AP"}[table.decides]
    panels = [_Panel("the paper", "GFLOPs, as the paper counts", printed, _printed(table, rows, costs))]
    if measured:
        metric = next(iter(measured.values())).metric
        found = _found(rows, measured)
        panels.append(_Panel("measured", "million multiply-accumulates", metric, found))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.8 * len(panels) + 0.4, 4.8), layout="constrained", dpi=150)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, panel, methods)
        points = [point for panel in panels for point in panel.points]
        figure.legend(handles=_handles(points, methods), loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, format="png", metadata={"Title": f"Table {table.number}", "Software": None})


def _draw_panel(axes: Any, panel: _Panel, methods: list[str]) -> None:
    for point in panel.points:
        _draw_point(axes, point, methods.index(point.method))
    if panel.points:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(panel.title)
    axes.set_xlabel(panel.cost)
    axes.set_ylabel(f"{panel.metric}, percent")


def _handles(points: Sequence[_Point], methods: Sequence[str]) -> list[Line2D]:
    """What the legend shows: the methods by colour and filling, the sizes by marker."""
    shown = {point.method for point in points}
    named = [
        Line2D([], [], marker="D", markersize=6, linestyle="none", label=method, **_look(place))
        for place, method in enumerate(methods)
        if method in shown
    ]
    return named + [
        Line2D(
            [], [], color="#888888", linestyle="none", marker=_MARKERS[size], label=f"{size}×{size} pixels"
        )
        for size in sorted({point.input for point in points})
    ]


def _printed(table: PaperTable, rows: Sequence[Row], costs: Mapping[str, Costs]) -> list[_Point]:
    points = []
    for row in rows:
        value, cost = table.figure(row), row.gflops
        if cost is None and row.name in costs:
            cost = costs[row.name].gflops
        if value is not None and cost is not None:
            points.append(_Point(row.method, row.input, cost, value, value, value))
    return points


def _found(rows: Sequence[Row], measured: Mapping[str, Measured]) -> list[_Point]:
    points = []
    for row in rows:
        one = measured.get(row.name)
        value = None if one is None else one.mean()
        if one is not None and value is not None:
            spread = one.spread() or 0.0
            low = max(value - spread, 0.0)
            points.append(_Point(row.method, row.input, one.macs / 1e6, value, low, value + spread))
    return points


def _look(place: int) -> dict[str, Any]:
    """Colour and filling by a method's place, so that twice as many methods as colours differ."""
    filling = _FILLINGS[place // len(_COLORS) % len(_FILLINGS)]
    return {"color": _COLORS[place % len(_COLORS)], "fillstyle": filling}


def _draw_point(axes: Any, point: _Point, place: int) -> None:
    error = [[point.value - point.low], [point.high - point.value]]
    axes.errorbar(
        [point.cost],
        [point.value],
        yerr=error if point.high > point.low else None,
        marker=_MARKERS[point.input],
        markersize=7,
        linestyle="none",
        capsize=3,
        **_look(place),
    )
