"""Without torch's private functions every op works as well, only slower."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_leaves, tree_map

from cdkd_ext.ops import _fast_path

PRIVATE = ["_any_requires_grad", "_are_functorch_transforms_active", "_AutoDispatchBelowAutograd"]


class Without(ModuleType):
    """A module that lacks a name."""

    def __init__(self, module: ModuleType, name: str) -> None:
        super().__init__(module.__name__)
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._module, name)


def fresh_copy() -> Any:
    spec = importlib.util.spec_from_file_location("fast_path_copy", _fast_path.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_private_functions_of_torch_stand_in_one_place() -> None:
    place = Path(_fast_path.__file__)
    for path in place.parent.glob("*.py"):
        private = re.findall(r"torch\._[A-Za-z]\w*|forward_ad\._\w+", path.read_text())
        assert bool(private) == (path == place), path.name


def test_this_torch_has_the_names() -> None:
    assert fresh_copy().is_plain()


@pytest.mark.parametrize("name", PRIVATE)
def test_a_torch_without_one_of_the_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._C", Without(torch._C, name))
    assert not fresh_copy().is_plain()


def test_a_torch_without_the_level_of_forward_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.autograd.forward_ad, "_current_level")
    assert not fresh_copy().is_plain()


@pytest.fixture
def without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PRIVATE:
        monkeypatch.delattr(_fast_path, name)
    monkeypatch.setattr(_fast_path, "_AVAILABLE", False)


def outcome(case: Any, dtype: torch.dtype) -> list[Tensor]:
    args, options = case.inputs(dtype, 3)
    with torch.no_grad():
        values = tree_leaves(case.public(*args, **options))
    args, options = case.inputs(dtype, 3)
    results = tree_leaves(case.public(*args, **options))
    moved = [x for x in tree_leaves(args) if isinstance(x, Tensor) and not x.requires_grad]
    wanted = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.requires_grad]
    if case.op != "simcc_decode":
        results += torch.autograd.grad((results[0] ** 2).sum(), wanted)
    return [x.detach() for x in (*values, *results, *moved)]


@pytest.fixture(params=[torch.float64, torch.float32, torch.bfloat16], ids=str)
def expected(case: Any, request: pytest.FixtureRequest) -> tuple[torch.dtype, list[Tensor]]:
    return request.param, outcome(case, request.param)


def test_the_same_results(case: Any, expected: tuple[torch.dtype, list[Tensor]], without_names: None) -> None:
    dtype, results = expected
    # the twin, which then stands in for the op, may round otherwise
    rounding = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(outcome(case, dtype), results, rtol=rounding, atol=rounding)


def test_second_derivatives_are_refused(case: Any, without_names: None) -> None:
    if case.op == "simcc_decode":
        pytest.skip("has no derivative")
    args, options = case.inputs(torch.float64, 2)
    (first,) = torch.autograd.grad(case.public(*args, **options).sum(), args[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"^cdkd: \w+ has no second derivative"):
        (first**2).sum().backward()


def test_transforms_and_compilers(case: Any, without_names: None) -> None:
    args, options = tree_map(
        lambda x: x.detach() if isinstance(x, Tensor) else x, case.inputs(torch.float64, 2)
    )

    def total(x: Tensor) -> Tensor:
        return tree_leaves(case.public(x, *args[1:], **options))[0].sum()

    torch._dynamo.reset()
    torch.testing.assert_close(
        torch.compile(total, fullgraph=True, backend="aot_eager")(args[0]), total(args[0])
    )
    if case.op != "simcc_decode":
        leaf = args[0].clone().requires_grad_()
        torch.testing.assert_close(grad(total)(args[0]), torch.autograd.grad(total(leaf), leaf)[0])
