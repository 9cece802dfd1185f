"""Types and scalars that the ops share, and the checks of their fakes.

Kernels check their own arguments. A fake, which runs where no kernel does, checks the same in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from cdkd_ext.errors import check, fail
from cdkd_ext.ops import _fast_path

_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_constants: dict[tuple[float, torch.device], Tensor] = {}


def accumulator_type(*tensors: Tensor) -> torch.dtype:
    """Type of an op's results: float64 if any tensor is, else float32."""
    for tensor in tensors:
        if tensor.dtype == torch.float64:
            return torch.float64
    return torch.float32


def common_type(*tensors: Tensor) -> torch.dtype:
    """Type that holds the values of all tensors that a kernel reads."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        if tensor.dtype != dtype and tensor.dtype in _TYPES and dtype in _TYPES:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a floating tensor; what is none goes to the kernel as it is, which refuses it."""
    return tensor if tensor.dtype == dtype or tensor.dtype not in _TYPES else tensor.to(dtype)


def detached(tensor: Tensor) -> Tensor:
    """A tensor without its graph: the loss of what alone would need a gradient must not seem to have one."""
    return tensor.detach() if tensor.requires_grad else tensor


def as_scalar(argument: str, value: float | Tensor, like: Tensor) -> Tensor:
    """Turn a positive finite number into a float64 tensor on the device of `like`; a tensor stays what it is."""
    if isinstance(value, Tensor):
        return value
    kept = type(like) in (Tensor, torch.nn.Parameter) and _fast_path.is_plain()
    constant = _constants.get((value, like.device)) if kept else None
    if constant is None:
        check_positive(argument, value)
        with torch.inference_mode(False):
            number = value if isinstance(value, float) else float(value)  # also what torch does not take
            constant = torch.full((), number, dtype=torch.float64, device=like.device)
        # modes of torch may have made something else of it, and a CUDA graph that is captured owns what it allocates
        captured = like.is_cuda and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        if kept and not captured and type(constant) is Tensor and len(_constants) < 64:
            if like.is_cuda:  # other streams read it without waiting for this one
                torch.cuda.current_stream(like.device).synchronize()
            _constants[value, like.device] = constant
    return constant


def check_tensor(
    argument: str,
    tensor: Tensor,
    sizes: Sequence[int | torch.SymInt | str],
    *,
    like: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Check that a tensor lies on the device of `like`, is of a type and has a shape; names stand for any size."""
    if like is not None:
        check_device(argument, tensor, like)
    check_dtype(argument, tensor, dtype)
    fits = tensor.dim() == len(sizes) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(tensor.shape, sizes, strict=True)
    )
    if not fits:
        fail_shape(argument, tensor, sizes)


def check_bins(argument: str, tensor: Tensor) -> None:
    """Check for a floating tensor whose last axis has at least one bin."""
    check_dtype(argument, tensor)
    if tensor.dim() == 0 or tensor.shape[-1] == 0:
        fail_shape(argument, tensor, ("...", "bins"), " with at least one bin")


def check_dtype(argument: str, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise TypeError unless the tensor is of this type; without one, of a type that kernels read."""
    if tensor.dtype not in ((dtype,) if dtype else _TYPES):
        expected = _name(dtype) if dtype else "float32, float64, bfloat16 or float16"
        raise TypeError(f"{argument}: expected dtype {expected}, got {_name(tensor.dtype)}")


def check_device(argument: str, tensor: Tensor, like: Tensor) -> None:
    """Check that a tensor lies on the device of `like`."""
    if tensor.device != like.device:
        fail(argument, f"one on {tensor.device}", f"a tensor on {like.device}")


def check_positive(argument: str, value: float, unit: str = "") -> None:
    """Check for a positive finite number."""
    check(0 < value < math.inf, argument, value, "a positive finite number" + unit)


def fail_shape(
    argument: str, tensor: Tensor, sizes: Sequence[int | torch.SymInt | str], more: str = ""
) -> NoReturn:
    """Raise InputError for a tensor's shape; `more` says what the sizes do not."""
    comma = "," if len(sizes) == 1 else ""
    fail(argument, tuple(tensor.shape), f"shape ({', '.join(map(str, sizes))}{comma}){more}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
