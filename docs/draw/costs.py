"""Accuracy on photographs against multiply-accumulates: the numbers of docs/results.md."""

from __future__ import annotations

import math
from typing import NamedTuple

from svg import INK, LINE, QUIET, STUDENT, TEACHER, Drawing


class _Network(NamedTuple):
    """A network at one resolution: millions of multiply-accumulates, PCKh of the limbs' joints, and where its name stands."""

    name: str
    macs: float
    accuracy: float
    color: str
    side: str = "start"


_AS_IT_IS, _SCRATCH, _ADAPTED = QUIET, STUDENT, TEACHER
_PANELS = (
    (
        "people 32 pixels high",
        (
            _Network("Lightning", 271, 30.2, _AS_IT_IS),
            _Network("Thunder", 1220, 35.4, _AS_IT_IS, "end"),
            _Network("lowres_base", 41, 43.7, _SCRATCH),
            _Network("Lightning at 128", 120, 51.9, _ADAPTED, "end"),
            _Network("at 160", 188, 55.2, _ADAPTED, "end"),
            _Network("at 192", 271, 56.5, _ADAPTED, "below"),
            _Network("Thunder", 1220, 60.8, _ADAPTED, "end"),
        ),
    ),
    (
        "people 64 pixels high",
        (
            _Network("Lightning", 271, 51.1, _AS_IT_IS),
            _Network("Thunder", 1220, 55.2, _AS_IT_IS, "end"),
            _Network("lowres_base", 164, 58.1, _SCRATCH),
            _Network("Lightning at 128", 120, 56.9, _ADAPTED, "end"),
            _Network("at 160", 188, 60.5, _ADAPTED, "end"),
            _Network("at 192", 271, 62.7, _ADAPTED, "end"),
            _Network("Thunder", 1220, 68.5, _ADAPTED, "end"),
        ),
    ),
)
_KINDS = (
    ("off the shelf, as it is", _AS_IT_IS),
    ("from scratch, with labels", _SCRATCH),
    ("adapted, no labels", _ADAPTED),
)
_WIDTH, _HEIGHT, _TOP, _PANEL = 430, 300, 70, 400
_LOW, _HIGH, _CHEAP, _DEAR = 25.0, 70.0, 25.0, 2000.0


def costs() -> Drawing:
    """A panel for each size of people: a dot for each network, the better the higher, the cheaper the further left."""
    drawing = Drawing(
        2 * _WIDTH + 60, _TOP + _HEIGHT + 70, "PCKh of the limbs' joints against multiply-accumulates"
    )
    for x, (name, color) in zip((66, 280, 520), _KINDS, strict=True):
        drawing.dot(x, 26, 6, fill=color)
        drawing.text(x + 14, 31, name, anchor="start", fill=INK)
    for number, (title, networks) in enumerate(_PANELS):
        _panel(drawing, 60 + number * (_WIDTH + 10), title, networks)
    return drawing


def _panel(drawing: Drawing, left: float, title: str, networks: tuple[_Network, ...]) -> None:
    drawing.text(left, _TOP - 12, f"{title}: PCKh in percent", anchor="start", bold=True)
    for accuracy in range(30, 71, 10):
        y = _down(accuracy)
        drawing.line([(left, y), (left + _PANEL - 20, y)], color=LINE, width=1)
        drawing.text(left - 8, y + 5, str(accuracy), size=13, fill=QUIET, anchor="end")
    for macs in (30, 100, 300, 1000):
        x = left + _across(macs)
        drawing.line([(x, _TOP), (x, _TOP + _HEIGHT)], color=LINE, width=1)
        drawing.text(x, _TOP + _HEIGHT + 20, f"{macs} M", size=13, fill=QUIET)
    drawing.text(
        left + _PANEL / 2, _TOP + _HEIGHT + 46, "multiply-accumulates of a crop", size=13, fill=QUIET
    )
    for network in networks:
        x, y = left + _across(network.macs), _down(network.accuracy)
        drawing.dot(x, y, 6, fill=network.color)
        if network.side == "below":
            drawing.text(x, y + 22, network.name, size=13, fill=network.color)
        else:
            shift = 11 if network.side == "start" else -11
            drawing.text(x + shift, y + 5, network.name, size=13, fill=network.color, anchor=network.side)


def _across(macs: float) -> float:
    return (_PANEL - 20) * math.log(macs / _CHEAP) / math.log(_DEAR / _CHEAP)


def _down(accuracy: float) -> float:
    return _TOP + _HEIGHT * (_HIGH - accuracy) / (_HIGH - _LOW)
