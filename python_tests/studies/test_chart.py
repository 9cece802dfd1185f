"""The chart of a study."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from cdkd_ext.images import read_image
from cdkd_ext.studies.chart import draw_chart
from cdkd_ext.studies.rows import RowResult
from cdkd_ext.studies.statistics import Estimate


def row(key, value, *, size=32, macs=None, shelf=False):
    limbs = Estimate(value, value - 2, value + 2, None, (0,), 100, (value,))
    return RowResult(key, key, key, size, shelf, limbs, None, macs=macs)


@pytest.mark.parametrize(("macs", "panels"), [((41, 41), 1), ((41, 168), 2), ((None, None), 1)])
def test_costs_are_drawn_where_students_differ_in_them(macs, panels, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", recording(Figure.savefig, drawn))
    rows = [
        row("labels", 40.0, macs=macs[0] and macs[0] * 10**6),
        row("taught", 42.0, macs=macs[1] and macs[1] * 10**6),
        row("a$x^{$_", 35.0, shelf=True),
    ]
    draw_chart(rows, tmp_path / "chart.png")
    assert read_image(tmp_path / "chart.png").shape[1] == 1100
    (figure,) = drawn
    assert len(figure.axes) == panels
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["a$x^{$_", "taught", "labels"]


def recording(save, drawn):
    def saved(figure, *arguments, **options):
        drawn.append(figure)
        return save(figure, *arguments, **options)

    return saved
