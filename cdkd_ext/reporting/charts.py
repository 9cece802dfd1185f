"""Charts as SVG to be put into a page."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# of Okabe and Ito, which people with any colour vision tell apart
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#444444")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cdkd",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    # a run may be called anything
    "text.parse_math": False,
}


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        name: in the legend.
        x: places.
        y: values.
        color: its number in `COLORS`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    from_zero: bool = True,
    mark: float | None = None,
    whole: bool = False,
) -> str:
    """Draw lines.

    Args:
        lines: at least one.
        title: what readers that see no images are told.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        from_zero: begin the vertical axis at 0.
        mark: a place on the horizontal axis to mark.
        whole: the horizontal axis counts.

    Returns:
        An ``<svg>`` element.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.9), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            dots: dict[str, Any] = {"marker": "o", "markersize": 4} if len(line.x) < 20 else {}
            color = COLORS[line.color % len(COLORS)]
            axes.plot(line.x, line.y, color=color, linewidth=2, **dots)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if from_zero:
            axes.set_ylim(bottom=0)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if mark is not None:
            axes.axvline(mark, color="#888888", linestyle="--", linewidth=1)
        # without handles, names that begin with _ would be left out
        handles = axes.lines[: len(lines)]
        figure.legend(
            handles, [line.name for line in lines], loc="outside lower left", ncols=3, frameon=False
        )
        file = io.StringIO()
        with warnings.catch_warnings():
            # the reader's browser has glyphs for the names of runs, whatever this machine lacks
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    return _embedded(file.getvalue(), title)


def _embedded(text: str, title: str) -> str:
    """The element without what makes it a file, with a size that follows the page's."""
    element = text[text.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.S)
    element = re.sub(r' (?:width|height)="[\d.]+pt"', "", element, count=2)
    # ids are the page's, where there are other charts
    number = f"{zlib.crc32(text.encode()):x}"
    element = re.sub(r'id="([^"]+)"', rf'id="c{number}-\1"', element)
    element = re.sub(r'(href="#|url\(#)([^")]+)', rf"\1c{number}-\2", element)
    label = title.replace("&", "and").replace('"', "'").replace("<", "under ")
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
