from __future__ import annotations

import pytest

SOURCE = '''\
"""A module."""


class Thing:
    """A thing.

    In two paragraphs.
    """

    @property
    def size(self) -> int:
        """Its size."""
        return 3  # bins


def plain():
    return Thing()
'''


def test_an_excerpt_is_the_code_without_its_docstring(hooks):
    assert hooks.excerpt(SOURCE, "Thing.size") == "@property\ndef size(self) -> int:\n    return 3  # bins"
    assert hooks.excerpt(SOURCE, "plain") == "def plain():\n    return Thing()"
    assert hooks.excerpt(SOURCE, "Thing").startswith("class Thing:\n\n    @property\n    def size")


@pytest.mark.parametrize("name", ["Thing.length", "thing", "plain.size"])
def test_an_excerpt_of_nothing_stops_the_build(hooks, name):
    with pytest.raises(KeyError, match=name.split(".")[-1]):
        hooks.excerpt(SOURCE, name)


def test_public_names_are_listed_where_they_are_defined(hooks):
    source = "from a.b import c\nif True:\n    from a.late import d as e\n__all__ = ['e', 'c', 'own']\n"
    assert hooks.public_names(source, "a") == ["a.late.d", "a.b.c", "a.own"]
    assert hooks.public_names(SOURCE + "\n\ndef _hidden():\n    pass\n", "a") == ["a.Thing", "a.plain"]


def test_a_formula_needs_no_script(hooks, tmp_path):
    class Config:
        config_file_path = str(tmp_path / "mkdocs.yml")

    (tmp_path / "code.py").write_text(SOURCE)
    page = "before\n\n$$\n\\frac{1}{B}\n$$\n\n<!-- source: code.py plain -->\n"
    found = hooks.on_page_markdown(page, config=Config)
    assert "<mfrac>" in found
    assert '```python title="code.py"\ndef plain():\n    return Thing()\n```' in found
