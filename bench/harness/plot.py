"""Draws how the cost of each competitor grows with each size."""

from __future__ import annotations

import os
from typing import Any

from bench.harness.case import EAGER, OURS
from bench.harness.spread import added, spread
from cdkd_ext.errors import check
from cdkd_ext.files import replacing


def draw(found: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """One row of panels for each benchmark, one panel for each size that grows.

    Both axes are logarithmic; 1 is our own time at the smallest size of the panel.
    """
    from matplotlib.figure import Figure

    rows = [(bench["name"], panels) for bench in found["benches"] if (panels := _panels(bench))]
    check(rows, "--plot", "no growing size among the cases", "at least one")
    columns = max(len(panels) for _, panels in rows)
    figure = Figure(figsize=(3.6 * columns, 2.8 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    styles: dict[str, str] = {OURS: "C0", EAGER: "C1", "floor": "0.6"}
    for (name, panels), line in zip(rows, grid, strict=True):
        for axes in line[len(panels) :]:
            axes.set_axis_off()
        for (size, cases), axes in zip(panels.items(), line, strict=False):
            one = spread(cases[0]["samples"][OURS]).median
            for competitor, points in _curves(cases).items():
                color = styles.setdefault(competitor, f"C{len(styles) - 1}")
                xs, ys = zip(*points, strict=True)
                style = ":" if competitor == "floor" else "o-"
                axes.loglog(xs, [y / one for y in ys], style, color=color, markersize=3, label=competitor)
            axes.set_xlabel(size)
            ticks = _apart([case["sizes"][size] for case in cases])
            axes.set_xticks(ticks, map(str, ticks))
            axes.minorticks_off()
        line[0].set_ylabel(f"{name}\ntime, ours at the left = 1")
        line[0].legend(fontsize="x-small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _panels(bench: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Cases of each size that grows."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for case in bench["cases"]:
        if case["group"] in case["sizes"]:
            panels.setdefault(case["group"], []).append(case)
    return panels


def _apart(sizes: list[int]) -> list[int]:
    """Those that can be written below a logarithmic axis without touching."""
    chosen = sizes[:1]
    for size in sizes[1:]:
        if size > 1.2 * chosen[-1]:
            chosen.append(size)
    return chosen


def _curves(cases: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Size and median time of what takes part in all cases."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for case in cases:
        times = {**case["samples"], **({"floor": added(*case["floor"].values())} if case["floor"] else {})}
        for name, samples in times.items():
            curves.setdefault(name, []).append((case["sizes"][case["group"]], spread(samples).median))
    return {name: points for name, points in curves.items() if len(points) == len(cases)}
