"""Whether competitors compute the same thing: asked before any of them is timed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class DisagreementError(AssertionError):
    """Two competitors give different numbers, so comparing their times would mean nothing."""


def difference(result: Any, reference: Any) -> float:
    """Largest ‖x − r‖ / ‖r‖ over all tensors of a result, None among them left out.

    Raises:
        DisagreementError: another number of tensors, other shapes, or NaN.
    """
    tensors, references = flatten(result), flatten(reference)
    if [x.shape for x in tensors] != [r.shape for r in references]:
        raise DisagreementError(
            f"shapes {[tuple(x.shape) for x in tensors]}, expected {[tuple(r.shape) for r in references]}"
        )
    worst = 0.0
    for x, r in zip(tensors, references, strict=True):
        relative = float((x - r).norm() / r.norm().clamp(min=1e-30)) if r.numel() else 0.0
        if relative != relative:
            raise DisagreementError("NaN among the results")
        worst = max(worst, relative)
    return worst


def flatten(result: Any) -> list[Tensor]:
    """All tensors and arrays in nested tuples and lists, as float64 on the CPU."""
    if result is None:
        return []
    if isinstance(result, (tuple, list)):
        return [tensor for part in result for tensor in flatten(part)]
    if isinstance(result, (np.ndarray, np.generic)):
        result = torch.from_numpy(np.asarray(result))
    return [result.detach().to("cpu", torch.float64)]
