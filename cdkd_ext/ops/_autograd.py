"""How a compiled op gets its derivative.

The kernel of the dispatcher's Autograd key looks whether anything needs a gradient. If so it runs an
`autograd.Function`, whose forward may call another op that keeps what the backward needs; if not, it goes
straight to the plain kernel. Compilers see one op before autograd and the ops inside the Function after it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("cdkd", "IMPL")


def differentiate(name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
    """Register the derivative of `cdkd::name` and return what calls the op.

    Args:
        name: the op.
        apply: called with the op's arguments, its keyword-only ones as such and without those equal to their
            default, where a tensor among them needs a gradient; calls an `autograd.Function`.

    Returns:
        A function of the op's arguments. Where neither a compiler nor a function transform has to see the op, it
        makes the choice that the Autograd key's kernel would make, without the way through the dispatcher.
    """
    op = getattr(torch.ops.cdkd, name).default

    def kernel(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args, **kwargs):
            return apply(*args, **kwargs)
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args, **kwargs)

    _library.impl(name, kernel, "Autograd", with_keyset=True)

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return op(*args, **kwargs)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args, **kwargs):
            return apply(*args, **kwargs)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args, **kwargs)

    return call


def no_derivative(*names: str) -> None:
    """Let autograd step over ops whose results never need a gradient."""
    for name in names:
        _library.impl(name, torch.library.fallthrough_kernel, "Autograd")


def first_order_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a Function's backward refuse to be differentiated.

    torch's `once_differentiable` lets a gradient penalty pass without effect when the incoming gradient is a
    constant; here asking for a graph of the backward is an error.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "cdkd: this op has no second derivative; call backward without create_graph=True"
            )
        return backward(ctx, *gradients)

    return checked


def accumulator_type(*tensors: torch.Tensor) -> torch.dtype:
    """Type of an op's results: float64 if any tensor is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
