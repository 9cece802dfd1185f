"""What the documentation's build adds to Markdown: formulas as MathML, and source code as it stands in the package."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.M | re.S)
_SOURCE = re.compile(r"^<!-- source: (\S+)(?: (\S+))? -->$", re.M)


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Replace `$$` blocks and `<!-- source: FILE [NAME] -->` lines; MkDocs calls this for every page."""
    root = Path(config.config_file_path).parent
    markdown = _FORMULA.sub(lambda found: _formula(found[1]), markdown)
    return _SOURCE.sub(lambda found: _block(root, found[1], found[2]), markdown)


def _formula(latex: str) -> str:
    """TeX as MathML, which browsers show by themselves."""
    return f'<div class="formula">{convert(latex, display="block")}</div>'


def _block(root: Path, file: str, name: str | None) -> str:
    source = (root / file).read_text(encoding="utf-8")
    code = source if name is None else excerpt(source, name)
    return f'```python title="{file}"\n{code.strip()}\n```'


def excerpt(source: str, name: str) -> str:
    """A function or class of a module's source, without its docstring.

    Args:
        source: of the module.
        name: of the function or class, `Class.method` for a method.

    Raises:
        KeyError: the source has no such name.
    """
    node: ast.AST = ast.parse(source)
    for part in name.split("."):
        node = _child(node, part)
    assert isinstance(node, _DEFINITIONS)
    lines = source.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    kept = list(range(first, (node.end_lineno or node.lineno) + 1))
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        kept = [line for line in kept if not docstring.lineno <= line <= (docstring.end_lineno or 0)]
    return textwrap.dedent("\n".join(lines[line - 1] for line in kept))


_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def _child(node: ast.AST, name: str) -> ast.AST:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DEFINITIONS) and child.name == name:
            return child
    raise KeyError(name)
