"""The package's layers: imports run downwards only."""

from __future__ import annotations

from svg import LINE, QUIET, Drawing

_LAYERS = (
    ("#6b4fa0", (("cli", "cdkd …: parses and calls"), ("demo", "a small study, with its report"))),
    ("#6b4fa0", (("training", "configuration, task, loop, resume"),)),
    ("#3a63a8", (("evaluation", "PCKh, COCO AP and AR"), ("inference", "Predictor, drawing"))),
    ("#2f7d4f", (("teachers", "any network that teaches"), ("distill", "SAPE, CCA, ETHT, label losses"))),
    ("#8a6d1f", (("data", "COCO and MPII files, crops, augmentation"), ("synthetic", "drawn people"))),
    (
        "#3a63a8",
        (("checkpoints", "reading, writing, converting"), ("models", "networks and their ModelSpec")),
    ),
    ("#8a6d1f", (("codecs", "coordinates to bins and maps, and back"),)),
    ("#c2571a", (("ops", "five operators: Python signatures, derivatives, reference.py"),)),
    ("#1f2933", (("csrc", "schemas, one room per op: CPU and CUDA kernels"),)),
)
_WIDTH, _LEFT, _TALL, _STEP = 900, 70, 52, 62


def layers() -> Drawing:
    """One row for each layer, the user's commands on top and the kernels at the bottom."""
    drawing = Drawing(_WIDTH, 40 + _STEP * len(_LAYERS), "The layers of cdkd_ext: imports run downwards only")
    for row, (color, rooms) in enumerate(_LAYERS):
        width = (_WIDTH - _LEFT - 30 - 12 * (len(rooms) - 1)) / len(rooms)
        for column, (name, holds) in enumerate(rooms):
            x, y = _LEFT + column * (width + 12), 25 + row * _STEP
            drawing.box(x, y, width, _TALL, fill="white", stroke=LINE)
            drawing.box(x, y, 8, _TALL, fill=color, stroke="none", radius=4)
            drawing.text(x + 22, y + 23, name, anchor="start", bold=True, size=16, fill=color)
            drawing.text(x + 22, y + 42, holds, anchor="start", size=13.5, fill=QUIET)
    drawing.arrow([(36, 30), (36, 14 + _STEP * len(_LAYERS))])
    return drawing
