"""The package's layers: imports run downwards only."""

from __future__ import annotations

from svg import LINE, QUIET, Drawing

_RUN, _NETWORK, _LEARN, _PEOPLE, _OPS, _KERNELS = (
    "#6b4fa0",
    "#3a63a8",
    "#2f7d4f",
    "#8a6d1f",
    "#c2571a",
    "#1f2933",
)
_LAYERS = (
    (_RUN, (("cli", "cdkd …: parses and calls"),)),
    (_RUN, (("demo", "a small study with its report"), ("tables", "the paper's rows, measured"))),
    (_RUN, (("studies", "many trainings, compared with intervals"),)),
    (
        _RUN,
        (
            ("adaptation", "networks see far"),
            ("deployment", "ONNX files"),
            ("reporting", "a page about runs"),
        ),
    ),
    (_RUN, (("training", "task, loop, resume"), ("recipes", "experiments as YAML"))),
    (_RUN, (("evaluation", "PCKh, COCO's AP and AR"),)),
    (_NETWORK, (("inference", "Predictor, drawing"),)),
    (_LEARN, (("teachers", "networks that teach, and their outputs stored"),)),
    (_LEARN, (("distillation", "SAPE, CCA, ETHT, losses from labels"),)),
    (_PEOPLE, (("data", "COCO and MPII files, footage, crops, augmentation"),)),
    (_PEOPLE, (("detectors", "boxes of people from ONNX files"),)),
    (_PEOPLE, (("synthetic", "drawn people"),)),
    (_NETWORK, (("checkpoints", "reading, writing, converting"),)),
    (_NETWORK, (("models", "networks and their description, ModelSpec"),)),
    (_NETWORK, (("codecs", "the codec of each head"),)),
    (_NETWORK, (("methods", "SimCC, heatmaps and others: layers, codec, loss"),)),
    (_OPS, (("ops", "five operators in Python"), ("emulation", "CUDA on the CPU"))),
    (_KERNELS, (("csrc", "schemas, one room per operator: kernels for CPU and CUDA"),)),
)
_WIDTH, _LEFT, _TALL, _STEP = 900, 70, 36, 43


def layers() -> Drawing:
    """One row for each layer, the user's commands on top and the kernels at the bottom."""
    drawing = Drawing(_WIDTH, 42 + _STEP * len(_LAYERS), "The layers of cdkd_ext: imports run downwards only")
    for row, (color, rooms) in enumerate(_LAYERS):
        width = (_WIDTH - _LEFT - 30 - 12 * (len(rooms) - 1)) / len(rooms)
        for column, (name, holds) in enumerate(rooms):
            x, y = _LEFT + column * (width + 12), 25 + row * _STEP
            drawing.box(x, y, width, _TALL, fill="white", stroke=LINE)
            drawing.box(x, y, 8, _TALL, fill=color, stroke="none", radius=4)
            drawing.text(x + 22, y + 24, name, anchor="start", bold=True, size=16, fill=color)
            drawing.text(x + 146, y + 24, holds, anchor="start", size=14.5, fill=QUIET)
    drawing.arrow([(36, 30), (36, 14 + _STEP * len(_LAYERS))])
    return drawing
