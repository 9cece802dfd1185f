"""Every way of differentiating an op gives the reference's derivative, or one sentence that says what is not there.

The expected values come from the plain PyTorch twin in float64 and torch's ordinary reverse mode.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.checkpoint import checkpoint

from cdkd_ext import ops

Function = Callable[..., Tensor]
NO_SECOND = r"^cdkd: \w+ has no second derivative"


class Problem:
    """An op as a function of the tensors that get gradients, with the same function of the reference."""

    def __init__(self, case: Any, dtype: torch.dtype = torch.float64, **changed: Any) -> None:
        args, options = case.inputs(dtype, 2)
        self.case = case
        self.options = {**options, **changed}
        self.leaves, self.spec = tree_flatten(args)
        self.places = [i for i, x in enumerate(self.leaves) if isinstance(x, Tensor) and x.requires_grad]
        self.leaves = [x.detach() if isinstance(x, Tensor) else x for x in self.leaves]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(self.leaves[i] for i in self.places)

    @property
    def tangents(self) -> tuple[Tensor, ...]:
        return tuple(torch.linspace(-1, 1.3, x.numel(), dtype=x.dtype).view_as(x) for x in self.inputs)

    def of(self, function: Function, dtype: torch.dtype | None = None) -> Function:
        def call(*inputs: Tensor) -> Tensor:
            leaves = list(self.leaves)
            for place, x in zip(self.places, inputs, strict=True):
                leaves[place] = x
            leaves = [
                x.clone() if i not in self.places and isinstance(x, Tensor) else x
                for i, x in enumerate(leaves)
            ]
            if dtype is not None:
                leaves = [x.to(dtype) if isinstance(x, Tensor) else x for x in leaves]
            return function(*tree_unflatten(leaves, self.spec), **self.options)

        return call

    @property
    def op(self) -> Function:
        return self.of(self.case.public)

    @property
    def exact(self) -> Function:
        return self.of(self.case.reference, torch.float64)

    def total(self, *inputs: Tensor) -> Tensor:
        return weighted(self.op(*inputs))


def weighted(result: Tensor) -> Tensor:
    return (result * torch.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).view_as(result)).sum()


@pytest.fixture
def problem(case: Any) -> Problem:
    if case.op == "simcc_decode":
        pytest.skip("has no derivative")
    return Problem(case)


def jacobians(problem: Problem, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.functional.jacobian(problem.exact, inputs)  # type: ignore[no-any-return]


def gradients(problem: Problem, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(weighted(problem.exact(*leaves)), leaves)


def tangent(problem: Problem, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
    parts = [
        (jacobian.flatten(jacobian.dim() - t.dim()) @ t.flatten() if t.dim() else jacobian * t)
        for jacobian, t in zip(jacobians(problem, inputs), tangents, strict=True)
    ]
    return functools.reduce(torch.add, parts)


def assert_close(found: Any, expected: Any) -> None:
    for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def every(problem: Problem) -> tuple[int, ...]:
    return tuple(range(len(problem.places)))


def with_duals(problem: Problem) -> Tensor:
    with forward_ad.dual_level():
        pairs = zip(problem.inputs, problem.tangents, strict=True)
        result = forward_ad.unpack_dual(problem.op(*(forward_ad.make_dual(x, t) for x, t in pairs)))
        assert result.tangent is not None
        return result.tangent


def with_pulled_back(problem: Problem) -> Any:
    result, pull_back = vjp(problem.op, *problem.inputs)
    return pull_back(torch.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).view_as(result))


def with_a_batch_of_gradients(problem: Problem) -> Any:
    inputs = [x.clone().requires_grad_() for x in problem.inputs]
    result = problem.op(*inputs)
    basis = torch.eye(result.numel(), dtype=result.dtype).view(-1, *result.shape)
    found = torch.autograd.grad(result, inputs, basis, is_grads_batched=True)
    return tuple(x.view(*result.shape, *leaf.shape) for x, leaf in zip(found, inputs, strict=True))


def with_functional_call(problem: Problem) -> Any:
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs = torch.nn.ParameterList(problem.inputs)

        def forward(self) -> Tensor:
            return problem.total(*self.inputs)

    module = Module()
    found = grad(lambda parameters: functional_call(module, parameters, ()))(dict(module.named_parameters()))
    return tuple(found.values())


def with_checkpoints(problem: Problem, reentrant: bool) -> Any:
    inputs = [x.clone().requires_grad_() for x in problem.inputs]
    result = checkpoint(problem.op, *inputs, use_reentrant=reentrant)
    weighted(result).backward()
    return tuple(x.grad for x in inputs)


JACOBIANS: dict[str, Callable[[Problem], Any]] = {
    "jacrev": lambda p: jacrev(p.op, every(p))(*p.inputs),
    "jacfwd": lambda p: jacfwd(p.op, every(p))(*p.inputs),
    "vectorized": lambda p: torch.autograd.functional.jacobian(p.op, p.inputs, vectorize=True),
    "vectorized-forward": lambda p: torch.autograd.functional.jacobian(
        p.op, p.inputs, vectorize=True, strategy="forward-mode"
    ),
    "batch of gradients": with_a_batch_of_gradients,
}
GRADIENTS: dict[str, Callable[[Problem], Any]] = {
    "grad": lambda p: grad(p.total, every(p))(*p.inputs),
    "vjp": with_pulled_back,
    "functional_call": with_functional_call,
    "checkpoint": lambda p: with_checkpoints(p, False),
    "checkpoint-reentrant": lambda p: with_checkpoints(p, True),
}
TANGENTS: dict[str, Callable[[Problem], Tensor]] = {
    "jvp": lambda p: jvp(p.op, p.inputs, p.tangents)[1],
    "linearize": lambda p: linearize(p.op, *p.inputs)[1](*p.tangents),
    "dual numbers": with_duals,
}


@pytest.mark.parametrize("way", JACOBIANS)
def test_jacobians(problem: Problem, way: str) -> None:
    if problem.case.op == "sau_select" and way in ("vectorized", "batch of gradients"):
        pytest.skip("is refused")
    assert_close(JACOBIANS[way](problem), jacobians(problem, problem.inputs))


@pytest.mark.parametrize("way", GRADIENTS)
def test_gradients(problem: Problem, way: str) -> None:
    assert_close(GRADIENTS[way](problem), gradients(problem, problem.inputs))


@pytest.mark.parametrize("way", TANGENTS)
def test_forward_mode(problem: Problem, way: str) -> None:
    assert_close(TANGENTS[way](problem), tangent(problem, problem.inputs, problem.tangents))


def test_forward_mode_in_some_inputs(problem: Problem) -> None:
    for i, (x, t) in enumerate(zip(problem.inputs, problem.tangents, strict=True)):

        def only(x: Tensor, i: int = i) -> Tensor:
            return problem.op(*problem.inputs[:i], x, *problem.inputs[i + 1 :])

        zeros = [torch.zeros_like(x) for x in problem.inputs]
        zeros[i] = t
        assert_close(jvp(only, (x,), (t,))[1], tangent(problem, problem.inputs, tuple(zeros)))
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(only(forward_ad.make_dual(x.clone().requires_grad_(), t)))
        assert_close(found.tangent.detach(), tangent(problem, problem.inputs, tuple(zeros)))


def test_forward_mode_of_half_precision(case: Any) -> None:
    if case.op == "simcc_decode":
        pytest.skip("has no derivative")
    problem, exact = Problem(case, torch.bfloat16), Problem(case, torch.bfloat16)
    inputs = tuple(x.double() for x in problem.inputs)
    found = jvp(problem.op, problem.inputs, problem.tangents)[1]
    assert found.dtype == torch.float32
    expected = tangent(exact, inputs, tuple(t.double() for t in problem.tangents))
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)


# a batch of problems: each input is stacked with a scaled copy
def stacked(x: Tensor) -> Tensor:
    return torch.stack((x, 0.8 * x, 1.1 * x))


def mappable(problem: Problem) -> Problem:
    """The problem with nothing to update, for several samples cannot share running statistics."""
    if problem.options.get("training"):
        problem.options["momentum"] = 0.0
    return problem


def samples(inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return list(zip(*inputs, strict=True))


def test_mapped(problem: Problem) -> None:
    inputs = tuple(map(stacked, mappable(problem).inputs))
    assert_close(vmap(problem.op)(*inputs), torch.stack([problem.exact(*x) for x in samples(inputs)]))


def test_mapped_over_any_axis_of_some_inputs(problem: Problem) -> None:
    mappable(problem)
    for i, x in enumerate(problem.inputs):
        batch = stacked(x).movedim(0, -1)
        dims = [None] * len(problem.places)
        dims[i] = -1
        inputs = (*problem.inputs[:i], batch, *problem.inputs[i + 1 :])
        expected = [
            problem.exact(*problem.inputs[:i], sample, *problem.inputs[i + 1 :]) for sample in stacked(x)
        ]
        assert_close(vmap(problem.op, tuple(dims))(*inputs), torch.stack(expected))


def test_mapped_twice(problem: Problem) -> None:
    inputs = tuple(stacked(stacked(x)) for x in mappable(problem).inputs)
    expected = [torch.stack([problem.exact(*x) for x in samples(outer)]) for outer in samples(inputs)]
    assert_close(vmap(vmap(problem.op))(*inputs), torch.stack(expected))


def test_mapped_over_nothing(problem: Problem) -> None:
    inputs = tuple(stacked(x)[:0] for x in mappable(problem).inputs)
    assert vmap(problem.op)(*inputs).shape == (0, *problem.exact(*problem.inputs).shape)


def test_gradient_of_each_sample(problem: Problem) -> None:
    inputs = tuple(map(stacked, mappable(problem).inputs))
    expected = [gradients(problem, x) for x in samples(inputs)]
    assert_close(
        vmap(grad(problem.total, every(problem)))(*inputs),
        tuple(map(torch.stack, zip(*expected, strict=True))),
    )


def test_gradient_through_a_map(problem: Problem) -> None:
    inputs = tuple(map(stacked, mappable(problem).inputs))
    found = grad(lambda *x: vmap(problem.total)(*x).sum(), every(problem))(*inputs)
    expected = [gradients(problem, x) for x in samples(inputs)]
    assert_close(found, tuple(map(torch.stack, zip(*expected, strict=True))))
    leaves = [x.requires_grad_() for x in inputs]
    assert_close(torch.autograd.grad(vmap(problem.total)(*leaves).sum(), leaves), found)


def test_tangent_of_each_sample(problem: Problem) -> None:
    inputs = tuple(map(stacked, mappable(problem).inputs))
    tangents = tuple(map(stacked, problem.tangents))
    found = vmap(lambda x, t: jvp(problem.op, x, t)[1])(inputs, tangents)
    pairs = zip(samples(inputs), samples(tangents), strict=True)
    assert_close(found, torch.stack([tangent(problem, x, t) for x, t in pairs]))
    found = jvp(vmap(problem.op), inputs, tangents)[1]
    pairs = zip(samples(inputs), samples(tangents), strict=True)
    assert_close(found, torch.stack([tangent(problem, x, t) for x, t in pairs]))


def twice_backward(problem: Problem, batched: bool = False) -> None:
    x = problem.inputs[0].clone().requires_grad_()
    result = problem.op(x, *problem.inputs[1:])
    given = torch.ones_like(result)[None] if batched else torch.ones_like(result)
    (first,) = torch.autograd.grad(result, x, given, is_grads_batched=batched, create_graph=True)
    (first**2).sum().backward()


def forward_over_reverse(problem: Problem, create_graph: bool) -> None:
    with forward_ad.dual_level():
        x = forward_ad.make_dual(problem.inputs[0].clone().requires_grad_(), problem.tangents[0])
        torch.autograd.grad(problem.total(x, *problem.inputs[1:]), x, create_graph=create_graph)


SECOND: dict[str, Callable[[Problem, Function, Tensor, Tensor], Any]] = {
    "grad of grad": lambda p, f, x, t: grad(lambda x: (grad(f)(x) ** 2).sum())(x),
    "hessian": lambda p, f, x, t: hessian(f)(x),
    "jacrev of grad": lambda p, f, x, t: jacrev(grad(f))(x),
    "jvp of grad": lambda p, f, x, t: jvp(grad(f), (x,), (t,)),
    "grad of jvp": lambda p, f, x, t: grad(lambda x: jvp(f, (x,), (t,))[1])(x),
    "jvp of jvp": lambda p, f, x, t: jvp(lambda x: jvp(f, (x,), (t,))[1], (x,), (t,)),
    "mapped grad of grad": lambda p, f, x, t: vmap(grad(lambda x: grad(f)(x).sum()))(stacked(x)),
    "autograd's hessian": lambda p, f, x, t: torch.autograd.functional.hessian(f, x),
    "autograd's hvp": lambda p, f, x, t: torch.autograd.functional.hvp(f, x, t),
    "double backward": lambda p, f, x, t: twice_backward(p),
    "double backward of a batch": lambda p, f, x, t: twice_backward(p, batched=True),
    "dual numbers in backward": lambda p, f, x, t: forward_over_reverse(p, create_graph=False),
    "dual numbers in backward with a graph": lambda p, f, x, t: forward_over_reverse(p, create_graph=True),
}


@pytest.mark.parametrize("way", SECOND)
def test_second_derivatives_are_refused(problem: Problem, way: str) -> None:
    def f(x: Tensor) -> Tensor:
        return problem.total(x, *problem.inputs[1:])

    mappable(problem)
    with pytest.raises(RuntimeError, match=NO_SECOND) as caught:
        SECOND[way](problem, f, problem.inputs[0], problem.tangents[0])
    assert problem.case.op in str(caught.value) and "\n" not in str(caught.value)


def test_a_batch_of_gradients_of_sau_select_is_refused(problem: Problem) -> None:
    if problem.case.op != "sau_select":
        pytest.skip("has a batch of gradients")
    with pytest.raises(RuntimeError, match=r"^cdkd: sau_select takes no batch of gradients"):
        with_a_batch_of_gradients(problem)


def test_constants_get_no_gradient(problem: Problem) -> None:
    """What is documented to get none, such as a teacher's logits: not even where it requires one."""
    places = [i for i, x in enumerate(problem.leaves) if isinstance(x, Tensor) and i not in problem.places]
    leaves = [x.clone() if isinstance(x, Tensor) else x for x in problem.leaves]
    for place in places:
        leaves[place].requires_grad_(leaves[place].is_floating_point() and problem.case.op != "sau_select")
    inputs = [leaves[place].requires_grad_() for place in problem.places]
    weighted(problem.case.public(*tree_unflatten(leaves, problem.spec), **problem.options)).backward()
    assert all(leaves[place].grad is None for place in places)
    assert_close([x.grad for x in inputs], gradients(problem, problem.inputs))
    if problem.case.op != "sau_select":
        for x in inputs:
            x.requires_grad_(False)
        result = problem.case.public(*tree_unflatten(leaves, problem.spec), **problem.options)
        assert not tree_leaves(result)[0].requires_grad, "a loss that nothing can learn from"


def test_without_a_graph(problem: Problem) -> None:
    expected = problem.exact(*problem.inputs)
    with torch.inference_mode():
        assert_close(problem.op(*problem.inputs), expected)
    with torch.no_grad():
        result = problem.op(*(x.clone().requires_grad_() for x in problem.inputs))
        assert not result.requires_grad
        assert_close(result, expected)
        found = grad(problem.total)(*problem.inputs)  # a transform inside of no_grad sees its own graph
    assert_close(found, gradients(problem, problem.inputs)[0])


def test_autocast(problem: Problem) -> None:
    inputs = [x.clone().requires_grad_() for x in problem.inputs]
    with torch.autocast("cpu", torch.bfloat16):
        total = problem.total(*inputs)
    assert_close(torch.autograd.grad(total, inputs), gradients(problem, problem.inputs))


def transformed(problem: Problem, way: str) -> Function:
    tangent_of_first = problem.tangents[0]
    ways: dict[str, Function] = {
        "grad": lambda *x: grad(problem.total)(*x),
        "jvp": lambda x, *rest: jvp(lambda x: problem.op(x, *rest), (x,), (tangent_of_first,))[1],
        "vmap": lambda x, *rest: vmap(lambda s: problem.op(s * x, *rest))(torch.tensor([1.0, 0.5]).double()),
        "jacrev": lambda *x: jacrev(problem.op)(*x),
    }
    return ways[way]


@pytest.mark.parametrize("way", ["grad", "jvp", "vmap", "jacrev"])
def test_compiled_transforms(problem: Problem, way: str) -> None:
    mappable(problem)
    torch._dynamo.reset()
    compiled = torch.compile(transformed(problem, way), fullgraph=True, backend="aot_eager")
    assert_close(compiled(*problem.inputs), transformed(problem, way)(*problem.inputs))


def test_a_backward_pass_is_compiled_alone(problem: Problem) -> None:
    from torch._dynamo import compiled_autograd

    inputs = [x.clone().requires_grad_() for x in problem.inputs]
    total = problem.total(*inputs)
    torch._dynamo.reset()
    with compiled_autograd._enable(torch.compile(backend="eager")):
        total.backward()
    assert_close([x.grad for x in inputs], gradients(problem, problem.inputs))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_derivatives_are_computed_once(problem: Problem, dynamic: bool) -> None:
    from torch._dynamo.testing import AotEagerAndRecordGraphs

    torch._dynamo.reset()
    backend = AotEagerAndRecordGraphs()
    inputs = [x.clone().requires_grad_() for x in problem.inputs]
    total = torch.compile(problem.total, fullgraph=True, backend=backend, dynamic=dynamic)(*inputs)
    assert_close(torch.autograd.grad(total, inputs), gradients(problem, problem.inputs))
    called = [
        str(node.target)
        for graph in (*backend.fw_graphs, *backend.bw_graphs)
        for node in graph.graph.nodes
        if str(node.target).startswith("cdkd.")
    ]
    twin = {"cca_kl": "gradients", "simcc_kl": "gradients"}.get(problem.case.op, "forward")
    assert called == [f"cdkd.{problem.case.op}_{twin}.default", f"cdkd.{problem.case.op}_backward.default"]


def test_the_raw_op_is_differentiable(case: Any) -> None:
    if case.op == "simcc_decode":
        pytest.skip("has no derivative")
    args, options = case.inputs(torch.float64, 2)

    def first(*args: Any) -> Tensor:
        return tree_leaves(case.raw(*args, **options))[0]

    assert torch.autograd.gradcheck(first, args)
    public = case.inputs(torch.float64, 2)[0]
    leaves, others = (
        [x for x in tree_leaves(a) if isinstance(x, Tensor) and x.requires_grad] for a in (args, public)
    )
    found = torch.autograd.grad(weighted(first(*args)), leaves)
    assert_close(found, torch.autograd.grad(weighted(case.public(*public, **options)), others))


@pytest.fixture
def selection_inputs(find_case: Any) -> Callable[[], dict[str, Any]]:
    """Fresh arguments of `sau_select` by name."""
    names = list(inspect.signature(ops.sau_select).parameters)

    def make() -> dict[str, Any]:
        args, _ = find_case("sau_select", "training").inputs(torch.float64, 2)
        return dict(zip(names, tree_map(lambda x: x.detach(), args), strict=False))

    return make


def test_running_statistics_move_below_transforms(selection_inputs: Callable[[], dict[str, Any]]) -> None:
    """As without a transform, once per call."""
    moved = []
    for transform in (
        lambda f, x: f(x),
        lambda f, x: grad(f)(x),
        lambda f, x: jvp(f, (x,), (x,)),
        lambda f, x: jacfwd(f)(x),
    ):
        inputs = selection_inputs()

        def total(x: Tensor, inputs: dict[str, Any] = inputs) -> Tensor:
            return weighted(ops.sau_select(**{**inputs, "feature": x}, training=True))

        transform(total, inputs["feature"])
        moved.append((inputs["running_mean"], inputs["running_var"]))
    assert not torch.equal(moved[0][0], selection_inputs()["running_mean"])
    for statistics in moved[1:]:
        assert_close(statistics, moved[0])


def test_samples_do_not_share_running_statistics_in_training(
    selection_inputs: Callable[[], dict[str, Any]],
) -> None:
    inputs = selection_inputs()
    features = stacked(inputs.pop("feature"))
    with pytest.raises(RuntimeError, match=r"^cdkd: sau_select in training cannot be mapped .* momentum=0"):
        vmap(lambda x: ops.sau_select(feature=x, **inputs, training=True))(features)


def test_an_ensemble_has_running_statistics_of_its_own(
    selection_inputs: Callable[[], dict[str, Any]],
) -> None:
    inputs = selection_inputs()
    names = [name for name in inputs if name != "conv_weights"]
    batch = {name: stacked(inputs[name]) for name in names}
    batch["conv_weights"] = [stacked(x) for x in inputs["conv_weights"]]
    alone = [
        {name: x[i].clone() if isinstance(x, Tensor) else [k[i] for k in x] for name, x in batch.items()}
        for i in range(3)
    ]
    found = vmap(lambda inputs: ops.sau_select(**inputs, training=True))(batch)
    for i, inputs in enumerate(alone):
        assert_close(found[i], ops.sau_select(**inputs, training=True))
        assert_close(batch["running_mean"][i], inputs["running_mean"])
        assert_close(batch["running_var"][i], inputs["running_var"])


def test_decoding_of_mapped_logits_takes_three_flipped_ones() -> None:
    logits = torch.randn(2, 1, 3, 8)
    with pytest.raises(ValueError, match=r"flipped: expected .* got 0 values"):
        vmap(lambda x: ops.simcc_decode(x, x, 2.0, flipped=()))(logits)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["plain", "flipped"])
def test_decoding_is_mapped_and_not_differentiated(variant: str, find_case: Any) -> None:
    case = find_case("simcc_decode", variant)
    (x, y, ratio), options = case.inputs(torch.float64, 2)
    x = x.detach()
    found = vmap(lambda x: case.public(x, y, ratio, **options))(stacked(x))
    expected = [case.public(sample, y, ratio, **options) for sample in stacked(x)]
    assert_close(found, tuple(map(torch.stack, zip(*expected, strict=True))))
    assert vmap(lambda x: case.public(x, y, ratio, **options))(stacked(x)[:0])[0].shape == (0, 2, 3, 2)

    def score(x: Tensor) -> Tensor:
        return case.public(x, y, ratio, **options)[1].sum()

    for differentiate in (
        lambda: grad(score)(x),
        lambda: jvp(score, (x,), (x,)),
        lambda: vmap(grad(score))(stacked(x)),
        lambda: jacfwd(score)(x),
    ):
        with pytest.raises(RuntimeError, match=r"^cdkd: simcc_decode has no derivative"):
            differentiate()
    # beside a derivative of something else it is welcome
    assert torch.equal(grad(lambda x: (x.sum(), score(x)), has_aux=True)(x)[0], torch.ones_like(x))


def test_a_tangent_of_zero_would_be_noticed(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"cdkd_ext.ops.{problem.case.op}")
    zeros = torch.zeros_like(problem.exact(*problem.inputs))
    monkeypatch.setattr(module, "_tangent", lambda *args: zeros)
    for way in TANGENTS:
        with pytest.raises(AssertionError):
            test_forward_mode(problem, way)
