"""What every op has to pass, whatever it computes; the inputs are in conftest.py."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from cdkd_ext import ops

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def flat(result: Any) -> list[Tensor]:
    return list(tree_flatten(result)[0])


def gradients(results: list[Tensor], inputs: Any) -> list[Tensor]:
    """Gradient of a fixed weighting of the results with respect to all inputs that require one."""
    wanted = [x for x in tree_flatten(inputs)[0] if isinstance(x, Tensor) and x.requires_grad]
    total = sum(
        (r * torch.linspace(0.5, 1.5, r.numel()).view_as(r)).sum() for r in results if r.requires_grad
    )
    return list(torch.autograd.grad(total, wanted)) if isinstance(total, Tensor) else []


def copied(inputs: Any, change: Any) -> Any:
    """Copy nested inputs, changing the tensors; leaves that require gradients stay such leaves."""

    def copy(x: Any) -> Any:
        return change(x.detach()).requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x

    return tree_map(copy, inputs)


def doubled(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_agrees_with_the_float64_reference(case: Any, dtype: torch.dtype) -> None:
    args, options = case.inputs(dtype, 4)
    results = flat(case.public(*args, **options))
    exact_args, exact_options = copied((args, options), doubled)
    expected = flat(case.reference(*exact_args, **exact_options))
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    assert all(result.dtype == accumulator for result in results)
    strict = TOLERANCE[dtype if dtype == torch.float64 else torch.float32]
    for result, exact in zip(results, expected, strict=True):
        torch.testing.assert_close(result.double(), exact, rtol=strict, atol=strict)
    found = gradients(results, (args, options))
    exact_gradients = gradients(expected, (exact_args, exact_options))
    for gradient, exact in zip(found, exact_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_gradients_have_the_type_of_their_inputs(case: Any, dtype: torch.dtype) -> None:
    args, options = case.inputs(dtype, 2)
    wanted = [x for x in args if isinstance(x, Tensor) and x.requires_grad]
    found = gradients(flat(case.public(*args, **options)), (args, options))
    if found:
        assert [(g.dtype, g.shape) for g in found] == [(x.dtype, x.shape) for x in wanted]


def test_gradcheck(case: Any) -> None:
    args, options = case.inputs(torch.float64, 2)
    if not any(result.requires_grad for result in flat(case.public(*args, **options))):
        pytest.skip("not differentiable")
    assert torch.autograd.gradcheck(lambda *args: case.public(*args, **options), args)


def test_opcheck(case: Any) -> None:
    args, options = case.inputs(torch.float32, 2)
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    torch.library.opcheck(case.raw, args, options)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_operator_itself_refuses_none_in_a_tensors_place(case: Any, device: str) -> None:
    args, options = copied(case.inputs(torch.float32, 2), lambda x: x.detach().to(device))
    names = [argument.name for argument in case.raw._schema.arguments]
    places = [place for place, value in enumerate(args) if isinstance(value, Tensor)]
    # torch's dispatcher refuses a call without any tensor
    for place in places if len(places) > 1 else ():
        spoiled = [*args[:place], None, *args[place + 1 :]]
        with pytest.raises((RuntimeError, TypeError), match=f"^{names[place]}: expected a tensor, got None"):
            case.raw(*spoiled, **options)


def test_compiles_into_one_graph(case: Any) -> None:
    args, options = case.inputs(torch.float32, 2)
    compiled = torch.compile(case.public, fullgraph=True, backend="aot_eager")
    results, expected = flat(compiled(*args, **options)), flat(case.public(*args, **options))
    torch.testing.assert_close(results, expected)
    torch.testing.assert_close(gradients(results, (args, options)), gradients(expected, (args, options)))


def test_exports(case: Any) -> None:
    args, options = case.inputs(torch.float32, 2)
    args, options = copied((args, options), torch.clone)

    class Module(torch.nn.Module):
        def forward(self, *args: Any) -> Any:
            return case.public(*args, **options)

    exported = torch.export.export(Module(), args).run_decompositions()
    assert any(node.target is case.raw for node in exported.graph.nodes)
    torch.testing.assert_close(flat(exported.module()(*args)), flat(case.public(*args, **options)))


def test_inputs_need_not_be_contiguous(case: Any) -> None:
    args, options = case.inputs(torch.float32, 3)
    strided_args, strided_options = copied((args, options), lambda x: torch.stack((x, x + 1), -1)[..., 0])
    assert not any(x.is_contiguous() for x in strided_args if isinstance(x, Tensor) and x.dim() > 1)
    results, expected = (
        flat(case.public(*strided_args, **strided_options)),
        flat(case.public(*args, **options)),
    )
    torch.testing.assert_close(results, expected, rtol=0, atol=0)
    found = gradients(results, (strided_args, strided_options))
    torch.testing.assert_close(found, gradients(expected, (args, options)), rtol=0, atol=0)


def test_bits_do_not_depend_on_the_threads(case: Any) -> None:
    before = torch.get_num_threads()
    # enough work for several threads
    batch = 300 if case.op in ("projector_cosine", "sau_select") else 60_000
    outcomes = []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            args, options = case.inputs(torch.float32, batch)
            results = flat(case.public(*args, **options))
            outcomes.append(results + gradients(results, (args, options)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=0, atol=0)
    torch.testing.assert_close(outcomes[2], outcomes[1], rtol=0, atol=0)


def test_no_gradient_no_graph(case: Any) -> None:
    args, options = case.inputs(torch.float32, 2)
    expected = flat(case.public(*args, **options))
    with torch.no_grad():
        results = flat(case.public(*args, **options))
    assert not any(result.requires_grad for result in results)
    torch.testing.assert_close(results, [result.detach() for result in expected])


def test_gradients_of_gradients_are_refused(case: Any) -> None:
    args, options = case.inputs(torch.float32, 2)
    results = [result for result in flat(case.public(*args, **options)) if result.requires_grad]
    if not results:
        pytest.skip("not differentiable")
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(results[0].sum(), args[0], create_graph=True)


def test_empty_batches_give_empty_results(case: Any) -> None:
    args, options = case.inputs(torch.float32, 0)
    results = flat(case.public(*args, **options))
    expected = flat(case.reference(*args, **options))
    assert [result.shape for result in results] == [result.shape for result in expected]
    assert all(result.numel() == 0 for result in results)
    for gradient in gradients(results, (args, options)):
        assert not gradient.any()


@pytest.mark.parametrize("name", ops.__all__)
def test_the_example_of_the_documentation(name: str) -> None:
    function = getattr(ops, name)
    examples = doctest.DocTestParser().get_doctest(
        inspect.getdoc(function) or "", {"torch": torch, name: function}, name, None, None
    )
    assert "Example:" in (examples.docstring or "")
    outcome = doctest.DocTestRunner().run(examples)
    assert outcome.attempted > 2 and outcome.failed == 0
