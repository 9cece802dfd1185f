"""PCKh on photographs, every seed a dot: the numbers of docs/results.md."""

from __future__ import annotations

from svg import INK, LINE, QUIET, STUDENT, TEACHER, Drawing

_ROWS = (
    ("teacher, 128 × 128", (35.53,), TEACHER),
    ("student alone, 32 × 32", (19.60, 20.90, 20.32), QUIET),
    ("student alone, 1.35 × the steps", (21.49, 22.25, 22.08), QUIET),
    ("student + CCA", (22.79, 23.57, 22.74), STUDENT),
    ("student + CCA + SAPE", (22.63, 21.86, 21.98), STUDENT),
    ("student + the paper's settings", (19.68,), STUDENT),
)
_LEFT, _RIGHT, _LOW, _HIGH = 280, 830, 18.0, 36.0


def results() -> Drawing:
    """One row for each network: a dot for each seed, a bar at the mean."""
    drawing = Drawing(900, 60 + 44 * len(_ROWS), "PCKh at 0.5 on LSP extended")
    bottom = 20 + 44 * len(_ROWS)
    for tick in range(18, 37, 2):
        x = _place(tick)
        drawing.line([(x, 20), (x, bottom)], color=LINE, width=1)
        drawing.text(x, bottom + 18, str(tick), size=13, fill=QUIET)
    drawing.text(_LEFT - 14, bottom + 18, "PCKh@0.5 in percent", size=13, fill=QUIET, anchor="end")
    for row, (name, values, color) in enumerate(_ROWS):
        y = 42 + 44 * row
        mean = sum(values) / len(values)
        drawing.text(_LEFT - 14, y + 5, name, anchor="end", fill=INK)
        drawing.line([(_place(mean), y - 13), (_place(mean), y + 13)], color=color, width=3)
        for value in values:
            drawing.dot(_place(value), y, 6, fill=color)
        drawing.text(_place(max(values)) + 14, y + 5, f"{mean:.2f}", anchor="start", size=14, fill=color)
    return drawing


def _place(value: float) -> float:
    return _LEFT + (value - _LOW) / (_HIGH - _LOW) * (_RIGHT - _LEFT)
