"""All of torch's private functions that the ops use: they save microseconds per call, and nothing needs them.

Where a release of torch lacks one of them, `is_plain` is never true: every call then takes the general way, through
public functions alone, and gets the same results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_is_compiling = torch.compiler.is_compiling
try:
    from torch._C import _any_requires_grad, _are_functorch_transforms_active, _AutoDispatchBelowAutograd

    _AVAILABLE = isinstance(forward_ad._current_level, int)
except (AttributeError, ImportError):
    _AVAILABLE = False


def is_plain() -> bool:
    """Whether no compiler, function transform or forward mode has to see the call. False where torch does not say."""
    return _AVAILABLE and not (
        _is_compiling() or _are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def is_transformed(*args: Any) -> bool:
    """Whether a function transform or forward mode has to see a call that is being compiled."""
    if _AVAILABLE and _are_functorch_transforms_active():
        return True
    return any(isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None for x in args)


def needs_gradient(*args: Any) -> bool:
    """Whether a plain call has to record a graph."""
    return torch.is_grad_enabled() and _any_requires_grad(*args)


def below_autograd(function: Callable[..., Any], *args: Any) -> Any:
    """Make a plain call of what needs no gradient, without the way through the Autograd kernel."""
    with _AutoDispatchBelowAutograd():
        return function(*args)
