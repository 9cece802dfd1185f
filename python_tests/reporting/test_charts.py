"""Charts of the report."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from cdkd_ext.reporting.charts import Line, line_chart


def test_names_in_any_script_are_drawn_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    lines = [Line("\u5c71\u9053", [0, 1], [1, 2], 0)]
    assert "\u5c71\u9053" in line_chart(lines, title="accuracy", x_label="epoch", y_label="percent")
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


@pytest.mark.parametrize("name", ["_first", "a$x^{$b", "<run> & co", "plain"])
def test_a_legend_has_the_names_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **o: (drawn.append(figure), save(figure, *a, **o))[1]
    )
    lines = [Line(name, [0, 1], [1, 2], 0), Line("other", [0, 1], [2, 3], 1)]
    text = line_chart(lines, title="accuracy", x_label="epoch", y_label="percent", mark=0.5)
    (legend,) = drawn[0].legends
    assert [label.get_text() for label in legend.get_texts()] == [name, "other"]
    assert [handle.get_color() for handle in legend.legend_handles] == [
        line.get_color() for line in drawn[0].axes[0].lines[:2]
    ]
    assert text.startswith("<svg") and "accuracy" in text
