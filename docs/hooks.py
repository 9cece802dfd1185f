"""What the documentation's build adds to Markdown: formulas as MathML, source code, and a package's public names."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.M | re.S)
_SOURCE = re.compile(r"^<!-- source: (\S+)(?: (\S+))? -->$", re.M)
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
_PACKAGE = re.compile(r"^<!-- package: (\S+) -->$", re.M)


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Replace `$$` blocks, `<!-- source: FILE [NAME] -->` and `<!-- package: NAME -->`; called for every page."""
    root = Path(config.config_file_path).parent
    markdown = _FORMULA.sub(lambda found: _formula(found[1]), markdown)
    markdown = _PACKAGE.sub(lambda found: _members(root, found[1]), markdown)
    return _SOURCE.sub(lambda found: _block(root, found[1], found[2]), markdown)


def _formula(latex: str) -> str:
    """TeX as MathML, which browsers show by themselves."""
    return f'<div class="formula">{convert(latex, display="block")}</div>'


def _block(root: Path, file: str, name: str | None) -> str:
    source = (root / file).read_text(encoding="utf-8")
    code = source if name is None else excerpt(source, name)
    return f'```python title="{file}"\n{code.strip()}\n```'


def _members(root: Path, package: str) -> str:
    """A package's docstring, and a reference to each of its public names where it is defined."""
    source = (root / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return "\n\n".join([docstring, *(f"::: {place}" for place in public_names(source, package))])


def public_names(source: str, package: str) -> list[str]:
    """The dotted places of a package's public names: those in `__all__`, or what it defines itself.

    Args:
        source: of the package's `__init__`.
        package: its dotted name.
    """
    tree = ast.parse(source)
    listed = [node.value for node in tree.body if isinstance(node, ast.Assign) and _is_all(node)]
    if not listed:
        own = [node.name for node in tree.body if isinstance(node, _DEFINITIONS)]
        return [f"{package}.{name}" for name in own if not name.startswith("_")]
    imports = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return [imports.get(name, f"{package}.{name}") for name in ast.literal_eval(listed[0])]


def _is_all(node: ast.Assign) -> bool:
    return ast.unparse(node.targets[0]) == "__all__"


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


def _child(node: ast.AST, name: str) -> ast.AST:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DEFINITIONS) and child.name == name:
            return child
    raise KeyError(name)
