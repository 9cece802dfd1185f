"""How a compiled op is differentiated, in each of torch's ways.

An op `cdkd::name` returns its result alone. Its twin also returns what the derivative needs, so that nothing is
computed twice. A `Derivative` says how the two belong together; `differentiable` makes of it

- an `autograd.Function` without frills for plain calls in which something needs a gradient;
- an `autograd.Function` with forward mode and a vmap rule for `torch.func` and for dual numbers;
- the registration of the twin, which is what compilers see where a gradient is needed, and of the op itself.

In function transforms that are compiled, plain PyTorch takes the op's place.

Derivatives are of first order: a second one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from cdkd_ext.ops import _fast_path
from cdkd_ext.ops._library import library

Arguments = tuple[Any, ...]


class Derivative:
    """An op's derivative; all methods take the op's arguments one by one, with its list of tensors spread out."""

    name: ClassVar[str]
    twin: ClassVar[str]
    results: ClassVar[int] = 1
    """How many of the twin's outputs are the op's own; only the first is differentiable."""

    @staticmethod
    def result(*args: Any) -> Any:
        """Call the op."""
        raise NotImplementedError

    @staticmethod
    def forward(needs: Sequence[bool], *args: Any) -> tuple[Tensor, ...]:
        """Call the twin; `needs` says which arguments need a gradient."""
        raise NotImplementedError

    @staticmethod
    def check(*args: Any) -> None:
        """Refuse what the op refuses, where neither its kernel nor its fake sees the arguments."""
        raise NotImplementedError

    @staticmethod
    def reference(*args: Any) -> Any:
        """Compute the op's results in plain PyTorch, from arguments that were checked."""
        raise NotImplementedError

    @staticmethod
    def keep(ctx: Any, inputs: Arguments, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Tensors that `backward` and `jvp` find in `ctx.saved_tensors`; the last are the twin's outputs but the first.

        What is no tensor goes to attributes of `ctx`. The twin's options may differ from the op's.
        """
        raise NotImplementedError

    @staticmethod
    def inputs_to_keep(*args: Any) -> tuple[Tensor, ...]:
        """Tensors among the arguments; what the op does not read and others may write to is replaced."""
        return tuple(x for x in args if isinstance(x, Tensor))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the leading arguments, from that of the result."""
        raise NotImplementedError

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Tangent of the result, from those of the arguments; None is zero."""
        raise NotImplementedError


def differentiable(derivative: type[Derivative]) -> Callable[..., Any]:
    """Register the derivative of an op and return what calls the op, whatever has to see the call."""
    plain, general = _plain(derivative), _general(derivative)
    _register_twin(derivative)
    _register_op(derivative)
    result, forward, results = derivative.result, derivative.forward, derivative.results

    def compiled(*args: Any) -> Any:
        if _fast_path.is_transformed(*args):  # compilers cannot see through a Function with a rule for each
            derivative.check(*args)
            return derivative.reference(*args)
        # an exported graph shows one op; it is trained less often than read
        needs = [isinstance(x, Tensor) and x.requires_grad for x in args]
        if torch.compiler.is_exporting() or not (torch.is_grad_enabled() and any(needs)):
            return result(*args)
        return _own(forward(needs, *args), results)

    def call(*args: Any) -> Any:
        if _fast_path.is_plain():
            if _fast_path.needs_gradient(*args):
                return plain.apply(*args)
            return _fast_path.below_autograd(result, *args)
        if torch.compiler.is_compiling():
            return compiled(*args)
        return _own(general.apply(*args), results)

    return call


def first_order(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a part of a derivative, a function of tensors, refuse to be differentiated."""

    class FirstOrder(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> Any:
            return function(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: Arguments, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
            refuse_second_order(name)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor) -> NoReturn:
            refuse_second_order(name)

    def call(*args: Any) -> Any:
        # without a graph, which `create_graph=True` asks for, there is nothing to differentiate
        if not torch.is_grad_enabled() and (_fast_path.is_plain() or torch.compiler.is_compiling()):
            return function(*args)
        return FirstOrder.apply(*args)

    return call


def refuse_second_order(name: str) -> NoReturn:
    """Raise, naming the op, for a derivative of a derivative."""
    raise RuntimeError(
        f"cdkd: {name} has no second derivative; differentiate it once, without create_graph=True, "
        f"or use cdkd_ext.ops.reference.{name}"
    )


def no_derivative(*names: str) -> None:
    """Let autograd step over ops whose results never need a gradient."""
    for name in names:
        library.impl(name, torch.library.fallthrough_kernel, "Autograd")


def tangent_of(function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Any]) -> Tensor:
    """Directional derivative of a plain PyTorch function, as the transpose of its transpose.

    `torch.func.jvp` would open a level of forward mode inside the one that asks for this derivative.
    """
    result, pull_back = _pulled_back(function, *primals)
    _, push_forward = _pulled_back(pull_back, torch.zeros_like(result))
    given = (
        torch.zeros_like(x) if t is None else t.to(x.dtype) for x, t in zip(primals, tangents, strict=True)
    )
    (tangent,) = push_forward(tuple(given))
    return tangent


_pulled_back: Callable[..., tuple[Any, Callable[..., Any]]] = torch.func.vjp  # type: ignore[assignment]


def _own(outputs: tuple[Tensor, ...], results: int) -> Any:
    return outputs[0] if results == 1 else outputs[:results]


def _plain(derivative: type[Derivative]) -> type[torch.autograd.Function]:
    """Function for calls that only reverse mode has to see."""
    forward_of, keep, backward_of = derivative.forward, derivative.keep, derivative.backward
    name, results = derivative.name, derivative.results

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            outputs = _fast_path.below_autograd(forward_of, ctx.needs_input_grad, *args)
            ctx.save_for_backward(*keep(ctx, args, outputs))
            if results == 1:
                return outputs[0]
            ctx.mark_non_differentiable(*outputs[1:results])
            return outputs[:results]

        @staticmethod
        def backward(ctx: Any, gradient: Tensor, *_: Any) -> Arguments:
            if torch.is_grad_enabled():  # what was kept has no graph, which a second derivative would miss
                refuse_second_order(name)
            return _padded(backward_of(ctx, gradient), len(ctx.needs_input_grad))

    return _renamed(Plain, name)


def _general(derivative: type[Derivative]) -> type[torch.autograd.Function]:
    """Function for every way of differentiating; it returns all that the twin does, as transforms demand."""

    class General(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> tuple[Tensor, ...]:
            return derivative.forward((True,) * len(args), *args)

        @staticmethod
        def setup_context(ctx: Any, inputs: Arguments, output: tuple[Tensor, ...]) -> None:
            kept = derivative.keep(ctx, inputs, output)
            ctx.save_for_backward(*kept)
            ctx.save_for_forward(*kept)
            ctx.set_materialize_grads(False)
            ctx.arguments, ctx.outputs = len(inputs), len(output)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> Arguments:
            return _padded(_only_first(derivative, ctx, gradients), ctx.arguments)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
            # what else depends on what the twin kept is a second derivative: it is refused where it uses these
            # tangents, and would be no number if it were not
            kept = ctx.saved_tensors[1 - ctx.outputs :]
            return derivative.jvp(ctx, *tangents), *(
                torch.full_like(x, torch.nan) if x.is_floating_point() else None for x in kept
            )

    return _renamed(General, derivative.name)


def _renamed(function: type[torch.autograd.Function], op: str) -> type[torch.autograd.Function]:
    """Name a Function after its op, as `grad_fn` shows it."""
    name = op.title().replace("_", "")
    return type(name, (function,), {})


def _only_first(derivative: type[Derivative], ctx: Any, gradients: Sequence[Tensor | None]) -> Arguments:
    """Gradients of the arguments where only the twin's first output may have got one."""
    if any(gradient is not None for gradient in gradients[1:]):
        refuse_second_order(derivative.name)
    return derivative.backward(ctx, gradients[0]) if gradients[0] is not None else ()


def _padded(gradients: Arguments, arguments: int) -> Arguments:
    return gradients + (None,) * (arguments - len(gradients))


def _register_twin(derivative: type[Derivative]) -> None:
    def setup_context(ctx: Any, inputs: Arguments, output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*derivative.keep(ctx, _spread(inputs), output))
        ctx.set_materialize_grads(False)
        ctx.like = _structure(inputs)

    def backward(ctx: Any, *gradients: Tensor | None) -> Arguments:
        needs = ctx.needs_input_grad
        ctx.needs_input_grad = _spread(needs)
        try:
            return _gathered(_only_first(derivative, ctx, gradients), ctx.like)
        finally:
            ctx.needs_input_grad = needs

    torch.library.register_autograd(f"cdkd::{derivative.twin}", backward, setup_context=setup_context)


def _register_op(derivative: type[Derivative]) -> None:
    """Differentiate the op by calling its twin in the backward pass."""

    def setup_context(
        ctx: Any, inputs: Arguments, output: Any, keyword_only_inputs: dict[str, Any] | None = None
    ) -> None:
        ctx.like = _structure(inputs)
        ctx.options = tuple((keyword_only_inputs or {}).values())  # torch gives none for an op that has none
        ctx.save_for_backward(*derivative.inputs_to_keep(*_spread(inputs), *ctx.options))
        if derivative.results > 1:
            ctx.mark_non_differentiable(*output[1:])

    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Arguments:
        args = (*ctx.saved_tensors, *ctx.options)
        again = _Context(_padded(_spread(ctx.needs_input_grad), len(args)))
        again.saved_tensors = derivative.keep(again, args, derivative.forward(again.needs_input_grad, *args))
        return _gathered(derivative.backward(again, gradient), ctx.like)

    torch.library.register_autograd(f"cdkd::{derivative.name}", backward, setup_context=setup_context)


class _Context:
    """What a derivative needs of an `autograd.Function`'s context."""

    saved_tensors: tuple[Tensor, ...]

    def __init__(self, needs_input_grad: Arguments) -> None:
        self.needs_input_grad = needs_input_grad


def _structure(args: Arguments) -> list[int | None]:
    """Length of each argument that is a list of tensors; None for others."""
    return [len(x) if isinstance(x, (list, tuple)) else None for x in args]


def _spread(args: Sequence[Any]) -> Arguments:
    """Replace lists by their elements."""
    return tuple(x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else (arg,)))


def _gathered(values: Arguments, like: Sequence[int | None]) -> Arguments:
    """Put values into lists again; missing ones at the end are None."""
    remaining = iter(values)
    return tuple(
        next(remaining, None) if length is None else [next(remaining, None) for _ in range(length)]
        for length in like
    )
