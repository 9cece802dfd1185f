"""The method in one picture, and how cross-class alignment merges bins."""

from __future__ import annotations

import math

from person import person
from svg import LOSS, QUIET, STUDENT, TEACHER, Drawing

_PEAK = 0.58  # where the joint lies, as a share of the axis


def distribution(bins: int, width: float = 0.07) -> list[float]:
    """A peak over so many bins."""
    return [math.exp(-(((i + 0.5) / bins - _PEAK) ** 2) / (2 * width**2)) + 0.02 for i in range(bins)]


def method() -> Drawing:
    """Teacher above, student below, what aligns them between."""
    drawing = Drawing(1180, 600, "A teacher at 256 by 256 pixels teaches a student at 64 by 64 pixels")
    _network(drawing, 40, -10, 256, "teacher, frozen", TEACHER, cells=48, grid=12, bins=32)
    _network(drawing, 410, 160, 64, "student, learns", STUDENT, cells=12, grid=5, bins=8)
    _sape(drawing)
    _cca(drawing)
    _total(drawing)
    return drawing


def _network(
    drawing: Drawing,
    y: float,
    caption: float,
    side: int,
    name: str,
    color: str,
    *,
    cells: int,
    grid: int,
    bins: int,
) -> None:
    drawing.cells(40, y, 140, person(cells))
    drawing.text(110, y + caption, f"crop, {side} × {side}", size=14, fill=QUIET)
    drawing.arrow([(186, y + 70), (228, y + 70)])
    drawing.box(230, y + 30, 150, 80, fill=color, stroke=color)
    drawing.text(305, y + 65, name.split(",")[0], fill="white", bold=True, size=17)
    drawing.text(305, y + 87, name.split(", ")[1], fill="white", size=13)
    drawing.arrow([(382, y + 70), (426, y + 70)])
    values = distribution(grid, 0.16)
    shades = [[_shade(color, values[row] * values[column]) for column in range(grid)] for row in range(grid)]
    drawing.cells(430, y + 10, 120, shades)
    drawing.text(490, y + caption, f"feature, J × {side // 4} × {side // 4}", size=14, fill=QUIET)
    drawing.arrow([(556, y + 70), (640, y + 70)])
    drawing.bars(646, y + 20, 200, 100, distribution(bins), [color] * bins)
    drawing.text(746, y + caption, f"logits per joint and axis, {3 * side} bins", size=14, fill=QUIET)


def _shade(color: str, strength: float) -> str:
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(245 + (channel - 245) * min(strength, 1)):02x}" for channel in channels)


def _sape(drawing: Drawing) -> None:
    drawing.arrow([(490, 176), (490, 226)], color=TEACHER)
    drawing.arrow([(490, 414), (490, 366)], color=STUDENT)
    drawing.box(376, 228, 228, 136, stroke=LOSS)
    drawing.text(490, 254, "SAPE: features", bold=True, fill=LOSS, size=17)
    drawing.text(490, 280, "K projections 16·16 → 64·64,", size=14)
    drawing.text(490, 300, "mixed per channel by the SAU,", size=14)
    drawing.text(490, 320, "compared by their cosine", size=14)
    drawing.text(490, 348, "projector_cosine · sau_select", size=12.5, fill=QUIET)


def _cca(drawing: Drawing) -> None:
    drawing.arrow([(746, 176), (746, 226)], color=TEACHER)
    drawing.arrow([(746, 414), (746, 366)], color=STUDENT)
    drawing.box(640, 228, 212, 136, stroke=LOSS)
    drawing.text(746, 254, "CCA: logits", bold=True, fill=LOSS, size=17)
    drawing.text(746, 280, "4 teacher bins → 1 class,", size=14)
    drawing.text(746, 300, "KL divergence at", size=14)
    drawing.text(746, 320, "temperature τ", size=14)
    drawing.text(746, 348, "cca_kl", size=12.5, fill=QUIET)
    drawing.box(196, 248, 146, 96, stroke=LOSS)
    drawing.text(269, 272, "ETHT: τ", bold=True, fill=LOSS, size=16)
    drawing.text(269, 294, "climbs the loss", size=13.5)
    drawing.text(269, 312, "through a", size=13.5)
    drawing.text(269, 330, "gradient reversal", size=13.5)
    drawing.arrow([(269, 246), (269, 206), (698, 206), (698, 226)], color=LOSS, dashed=True)


def _total(drawing: Drawing) -> None:
    drawing.box(920, 410, 220, 140, stroke=LOSS)
    drawing.text(1030, 438, "labels", bold=True, fill=LOSS, size=17)
    drawing.text(1030, 464, "where a person has them:", size=14)
    drawing.text(1030, 484, "Gaussian around the", size=14)
    drawing.text(1030, 504, "joint's bin", size=14)
    drawing.text(1030, 532, "simcc_kl", size=12.5, fill=QUIET)
    drawing.arrow([(854, 480), (918, 480)], color=STUDENT)
    drawing.box(920, 228, 220, 136, fill=LOSS, stroke=LOSS)
    drawing.text(1030, 268, "total loss", fill="white", bold=True, size=18)
    drawing.text(1030, 298, "L = L_labels", fill="white", size=16)
    drawing.text(1030, 322, "+ α · L_SAPE + β · L_CCA", fill="white", size=16)
    drawing.arrow([(854, 296), (918, 296)], color=LOSS)
    drawing.arrow([(1030, 408), (1030, 366)], color=LOSS)
    drawing.arrow([(570, 366), (570, 390), (886, 390), (886, 330), (918, 330)], color=LOSS)


def merging() -> Drawing:
    """The bins that one class takes, as printed and centred."""
    drawing = Drawing(900, 330, "Four teacher bins merge into one student class, in two phases")
    for y, phase, shift in ((50, "phase = paper", 0.0), (200, "phase = centered", 1.5)):
        drawing.text(30, y - 18, phase, anchor="start", bold=True)
        _phase(drawing, y, shift)
    return drawing


def _phase(drawing: Drawing, y: float, shift: float) -> None:
    bins, ratio, left, step = 16, 4, 30.0, 52.0
    colors = ("#9db7e0", "#f0bf96", "#a6d3b7", "#cfb7de")
    for i in range(bins):
        for part in range(2):  # half bins, because the centred intervals begin in the middle of one
            place = (i + part / 2 + shift) / ratio
            color = colors[min(int(place), 3)]
            drawing.box(left + (i + part / 2) * step, y, step / 2, 34, fill=color, stroke="none", radius=0)
        drawing.box(left + i * step, y, step, 34, fill="none", stroke="white", radius=0)
        drawing.text(left + (i + 0.5) * step, y + 22, str(i), size=13)
    for j, color in enumerate(colors):
        # class j stands for the coordinate of teacher bin 4 j
        x = left + (ratio * j + 0.5) * step
        drawing.line([(x, y + 34), (x, y + 56)], color=QUIET)
        drawing.dot(x, y + 62, 9, fill=color)
        drawing.text(x + 16, y + 67, f"class {j}", anchor="start", size=13)
