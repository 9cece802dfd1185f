"""A running person as an image of few or many cells: what a network of low or high resolution sees."""

from __future__ import annotations

import math

_JOINTS = {
    "head": (0.56, 0.17),
    "neck": (0.53, 0.28),
    "hip": (0.46, 0.55),
    "elbow_left": (0.66, 0.42),
    "wrist_left": (0.78, 0.33),
    "elbow_right": (0.36, 0.38),
    "wrist_right": (0.27, 0.51),
    "knee_left": (0.62, 0.66),
    "ankle_left": (0.60, 0.86),
    "knee_right": (0.39, 0.73),
    "ankle_right": (0.20, 0.79),
}
_LIMBS = (
    ("neck", "hip", 0.075, (188, 74, 60)),
    ("hip", "knee_right", 0.05, (44, 62, 92)),
    ("knee_right", "ankle_right", 0.038, (44, 62, 92)),
    ("hip", "knee_left", 0.055, (58, 80, 116)),
    ("knee_left", "ankle_left", 0.042, (58, 80, 116)),
    ("neck", "elbow_right", 0.034, (205, 150, 118)),
    ("elbow_right", "wrist_right", 0.03, (205, 150, 118)),
    ("neck", "elbow_left", 0.036, (221, 168, 134)),
    ("elbow_left", "wrist_left", 0.03, (221, 168, 134)),
    ("head", "head", 0.075, (221, 168, 134)),
)
_SAMPLES = 4  # per cell and axis

Color = tuple[float, float, float]


def person(cells: int) -> list[list[str]]:
    """Colours of `cells` × `cells` cells, each the mean of what lies in it, in steps of eight."""
    return [[_mean(row, column, cells) for column in range(cells)] for row in range(cells)]


def _mean(row: int, column: int, cells: int) -> str:
    steps = [(i + 0.5) / _SAMPLES for i in range(_SAMPLES)]
    samples = [_color((column + dx) / cells, (row + dy) / cells) for dx in steps for dy in steps]
    mean = (sum(channel) / len(samples) for channel in zip(*samples, strict=True))
    return "#" + "".join(f"{min(8 * round(value / 8), 255):02x}" for value in mean)


def _color(x: float, y: float) -> Color:
    for start, end, radius, color in reversed(_LIMBS):
        if _distance((x, y), _JOINTS[start], _JOINTS[end]) < radius:
            return color
    return (168, 190, 150) if y > 0.84 else (204, 220, 232)


def _distance(point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> float:
    """From a point to a segment."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = dx * dx + dy * dy
    along = ((point[0] - start[0]) * dx + (point[1] - start[1]) * dy) / length if length else 0.0
    along = min(max(along, 0.0), 1.0)
    return math.hypot(point[0] - start[0] - along * dx, point[1] - start[1] - along * dy)
