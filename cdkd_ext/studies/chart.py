"""The chart of a study: accuracy with intervals by row, and against multiply-accumulates."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from cdkd_ext.files import replacing
from cdkd_ext.reporting.charts import COLORS
from cdkd_ext.studies.rows import RowResult

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    # a network's file may be called anything
    "text.parse_math": False,
}
_STUDENT, _SHELF = COLORS[0], COLORS[1]


def draw_chart(rows: Sequence[RowResult], path: Path) -> None:
    """Draw the rows that were measured: a panel for each size, and their costs where students differ in these.

    Args:
        rows: of the report.
        path: of the PNG file.
    """
    measured = [row for row in rows if row.limbs is not None]
    sizes = sorted({row.size for row in measured}, key=lambda size: size or 10_000)
    heights = [max(sum(row.size == size for row in measured), 2) + 1 for size in sizes]
    costs = {row.macs for row in measured if row.macs and not row.shelf}
    below = [14] if len(costs) > 1 else []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 0.36 * sum(heights + below) + 1), layout="constrained")
        grid = figure.add_gridspec(len(sizes) + len(below), 1, height_ratios=[*heights, *below])
        shared = None
        for place, size in enumerate(sizes):
            shared = figure.add_subplot(grid[place], sharex=shared)
            _by_row(shared, [row for row in measured if row.size == size])
        if shared is not None:
            shared.set_xlabel("p12: PCKh@0.5 of the limbs' joints, % [95 %]")
        if below:
            _against_macs(figure.add_subplot(grid[len(sizes)]), measured)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)


def _by_row(axes: Any, rows: Sequence[RowResult]) -> None:
    """A dot with its interval for each row, the first on top, and a small dot for each seed."""
    for place, row in enumerate(reversed(rows)):
        assert row.limbs is not None
        color = _SHELF if row.shelf else _STUDENT
        below, above = row.limbs.value - row.limbs.low, row.limbs.high - row.limbs.value
        axes.errorbar(row.limbs.value, place, xerr=[[below], [above]], color=color, fmt="o", capsize=3)
        axes.scatter(row.limbs.each, [place] * len(row.limbs.each), color=color, s=9, alpha=0.5, zorder=3)
    axes.set_yticks(range(len(rows)), [_short(row.title) for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    size = rows[0].size
    axes.set_title("full resolution" if size is None else f"{size}×{size} pixels", loc="left", fontsize=11)


def _against_macs(axes: Any, rows: Sequence[RowResult]) -> None:
    """Students by what a crop costs; networks off the shelf, whose cost is not known, as lines."""
    students = [row for row in rows if not row.shelf and row.macs]
    kinds = list(dict.fromkeys(row.kind for row in students))
    for number, kind in enumerate(kinds):
        own = sorted((row for row in students if row.kind == kind), key=lambda row: row.macs or 0)
        found = [row.limbs for row in own if row.limbs is not None]
        errors = [[one.value - one.low for one in found], [one.high - one.value for one in found]]
        # a little apart, or intervals of the same cost hide each other
        places = [(row.macs or 0) / 1e6 * 1.02 ** (number - (len(kinds) - 1) / 2) for row in own]
        color = COLORS[number % len(COLORS)]
        values = [one.value for one in found]
        axes.errorbar(places, values, yerr=errors, fmt="o-", capsize=3, color=color, label=_short(kind))
    small = {row.size for row in students}
    for row in rows:
        if row.shelf and row.size in small and row.limbs is not None:
            axes.axhline(row.limbs.value, color="#888888", linestyle="--", linewidth=1)
            where = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
            text = f"{row.title}, {row.size} px"
            axes.annotate(text, (0.995, row.limbs.value), fontsize=8, color="#666666", **where)
    costs = sorted({(row.macs or 0) / 1e6 for row in students})
    axes.set_xscale("log")
    axes.set_xticks(costs, [f"{cost:.0f}" for cost in costs])
    axes.minorticks_off()
    axes.margins(x=0.12)
    axes.set_xlabel("million multiply-accumulates for a crop")
    axes.set_ylabel("p12, %")
    if kinds:
        axes.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2)


def _short(title: str, longest: int = 44) -> str:
    """A title in lines that leave room for the chart."""
    return "\n".join(textwrap.wrap(title, longest, break_long_words=False, break_on_hyphens=False))
