"""The names in the glossary are names of the package."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

GLOSSARY = (Path(__file__).resolve().parents[1] / "docs" / "glossary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(cdkd_ext(?:\.\w+)+)`", GLOSSARY))))
def test_the_name_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    owner = import_module(module)
    if not hasattr(owner, attribute):
        import_module(name)


def test_terms_are_explained_once() -> None:
    terms = re.findall(r"^\*\*(.+)\*\*\n: ", GLOSSARY, re.M)
    assert len(terms) > 40 and len(set(terms)) == len(terms)
