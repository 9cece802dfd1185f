"""Imports run one way: from the command line down to the ops, and never into another package's private parts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cdkd_ext"

# from the top; modules of one layer do not import each other
LAYERS = [
    ["cli"],
    ["demo", "tables"],
    ["studies"],
    ["adaptation", "deployment", "reporting"],
    ["recipes", "training"],
    ["evaluation"],
    ["inference"],
    ["teachers"],
    ["distillation"],
    ["data"],
    ["detectors"],
    ["synthetic"],
    ["checkpoints"],
    ["models"],
    ["codecs"],
    ["methods"],
    ["info"],
    ["emulation", "ops"],
    ["blocks", "captured", "extras", "images", "joints", "onnx_file", "tensor_checks"],
    ["files", "joint_sides", "late", "resampling", "signals"],
    ["errors"],
]
HEIGHT = {name: -depth for depth, names in enumerate(LAYERS) for name in names}
# private to the package as a whole, not to one of its rooms
SHARED = ("_C", "_ops", "_cuda_emulation")


def imports_of(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything of this package that a module imports, wherever in it."""
    parts = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            origin = ".".join(part for part in (start, node.module or "") if part)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "cdkd_ext")


def room_of(name: str) -> str:
    """The room, or the single module, that a full name lies in: "" for the front door."""
    return name.split(".")[1] if "." in name else ""


def violations(modules: dict[str, str]) -> list[str]:
    """What breaks the order in modules given by full name and source."""
    found = []
    for module, source in modules.items():
        room = room_of(module)
        # the front door opens into every room
        height = HEIGHT.get(room, 1) if room else 1
        if room and room not in HEIGHT and room not in SHARED:
            found.append(f"{module}: {room} has no layer")
        for line, name in imports_of(source, module):
            other = room_of(name)
            private = [part for part in name.split(".")[2:] if part.startswith("_")]
            if other == room or other in SHARED or name == "cdkd_ext.__version__":
                continue
            if other not in HEIGHT:
                found.append(f"{module}:{line}: {name} has no layer")
            elif HEIGHT[other] >= height:
                found.append(f"{module}:{line}: {name} is no lower than {room}")
            if private:
                found.append(f"{module}:{line}: {name} is private to {other}")
    return found


def circles(modules: dict[str, str]) -> list[str]:
    """Modules that import themselves through others."""
    edges = {
        module: {
            # a name is a module, or lies in one
            name if name in modules else name.rpartition(".")[0]
            for _, name in imports_of(source, module)
        }
        & (modules.keys() - {module, "cdkd_ext"})
        for module, source in modules.items()
    }
    done: set[str] = set()
    found: list[str] = []

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for other in sorted(edges[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return found


def source_of_package() -> dict[str, str]:
    """The package's modules by full name; a package's own module has no suffix."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["cdkd_ext", *path.relative_to(PACKAGE).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = path.read_text(encoding="utf-8")
    return modules


def test_imports_run_downwards_and_stay_out_of_private_parts() -> None:
    modules = source_of_package()
    assert len(modules) > 50
    assert violations(modules) == []


def test_no_module_imports_itself_through_others() -> None:
    assert circles(source_of_package()) == []


@pytest.mark.parametrize(
    ("module", "statement", "message"),
    [
        ("cdkd_ext.models.hrnet", "from cdkd_ext.training.loop import Trainer", "is no lower than models"),
        ("cdkd_ext.models.hrnet", "import cdkd_ext.inference", "is no lower than models"),
        ("cdkd_ext.inference.prediction", "def f():\n    from cdkd_ext import evaluation", "is no lower"),
        ("cdkd_ext.ops.cca_kl", "from ..models import create_model", "is no lower than ops"),
        ("cdkd_ext.data.coco", "from cdkd_ext.ops._library import load", "is private to ops"),
        ("cdkd_ext.training.run", "from cdkd_ext.data.coco import _person", "is private to data"),
        ("cdkd_ext.training.run", "from cdkd_ext import create_model", "has no layer"),
        ("cdkd_ext.novelty.a", "import torch", "novelty has no layer"),
    ],
)
def test_a_planted_violation_is_found(module: str, statement: str, message: str) -> None:
    source = source_of_package().get(module, "")
    (found,) = violations({module: f"{source}\n{statement}\n"})
    assert message in found and found.startswith(module)


def test_a_planted_circle_is_found() -> None:
    modules = source_of_package()
    modules["cdkd_ext.models.spec"] += "\nfrom cdkd_ext.models.registry import create_model\n"
    found = circles(modules)
    assert any("models.registry" in circle and "models.spec" in circle for circle in found)


def test_what_the_order_allows_is_not_found() -> None:
    allowed = (
        "from cdkd_ext.models import ModelSpec\nfrom cdkd_ext._C import cpu_features\n"
        "from cdkd_ext.training._own import thing\nimport torch._C\n"
    )
    assert violations({"cdkd_ext.training.run": allowed}) == []
