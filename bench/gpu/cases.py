"""The ops as the GPU's stages call them: inputs, our call, the eager twin, and the least that any kernel must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import cca_kl, projector_cosine, sau_select, simcc_decode
from cdkd_ext import ops
from cdkd_ext.ops import reference

Sizes = Mapping[str, int]
SIZES = {"joints": 17, "classes": 192, "bins": 768, "side": 16, "teacher side": 64, "projectors": 3}
TINY = {"joints": 3, "classes": 12, "bins": 48, "side": 4, "teacher side": 8, "projectors": 2}
_KERNELS = sau_select.KERNELS


@dataclass(frozen=True)
class Inputs:
    """Inputs of a call, and those of them that learn."""

    all: tuple[Tensor, ...]
    learn: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Op:
    """One op.

    Attributes:
        name: of the op.
        ours: the compiled op on the inputs.
        eager: the same of torch's own functions, as one writes it.
        draw: makes inputs from sizes with a batch, a dtype and a generator, on the generator's device.
        multiply_adds: of a forward pass's matrix products.
        tolerance: largest ‖x − reference‖ / ‖reference‖, for float32 and for 16 bits.
    """

    name: str
    ours: Callable[..., Any]
    eager: Callable[..., Any]
    draw: Callable[[Sizes, torch.dtype, torch.Generator], Inputs]
    multiply_adds: Callable[[Sizes], int] = lambda sizes: 0
    tolerance: tuple[float, float] = (1e-4, 1e-2)

    @property
    def learns(self) -> bool:
        """Whether there is a backward pass."""
        return self.name != "simcc_decode"


def inputs(op: Op, sizes: Sizes, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Inputs drawn on a device; those that learn ask for gradients."""
    drawn = op.draw(sizes, dtype, torch.Generator(device).manual_seed(seed))
    for tensor in drawn.learn:
        tensor.requires_grad_()
    return drawn


def widened(drawn: Inputs) -> Inputs:
    """The same inputs in float64."""
    wide = {
        id(tensor): tensor.detach().double() if tensor.is_floating_point() else tensor for tensor in drawn.all
    }
    return Inputs(tuple(wide.values()), tuple(wide[id(tensor)].requires_grad_() for tensor in drawn.learn))


def run(function: Callable[..., Any], drawn: Inputs) -> tuple[Tensor, ...]:
    """Results and, where something learns, gradients of their sum weighted by place."""
    if not drawn.learn:
        with torch.no_grad():
            return _tuple(function(*drawn.all))
    (result,) = _tuple(function(*drawn.all))
    weights = torch.linspace(0.5, 1.5, result.numel(), device=result.device, dtype=result.dtype)
    return (result, *torch.autograd.grad(result, drawn.learn, weights.view_as(result)))


def least_bytes(drawn: Inputs, results: Sequence[Tensor]) -> int:
    """Each input read once, each result and gradient written once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*drawn.all, *results))


def _tuple(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _draw_cca_kl(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    rows = sizes["batch"], sizes["joints"]
    student = torch.randn(*rows, sizes["classes"], generator=generator, device=generator.device).to(dtype)
    teacher = torch.randn(*rows, sizes["bins"], generator=generator, device=generator.device).to(dtype)
    return Inputs((student, teacher), (student,))


def _draw_simcc_kl(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    rows = sizes["batch"], sizes["joints"]
    logits = torch.randn(*rows, sizes["classes"], generator=generator, device=generator.device).to(dtype)
    return Inputs(
        (logits, torch.rand(rows, generator=generator, device=generator.device) * (sizes["classes"] - 1)),
        (logits,),
    )


def _draw_simcc_decode(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    shape = sizes["batch"], sizes["joints"], sizes["classes"]
    x, y = (torch.randn(shape, generator=generator, device=generator.device).to(dtype) for _ in range(2))
    for logits in (x, y):
        # a peak far above the rest, as networks give it: which bin wins does not hang on the last bit
        peak = torch.randint(shape[-1], (*shape[:2], 1), generator=generator, device=generator.device)
        logits.scatter_(-1, peak, torch.full_like(peak, 12, dtype=dtype))
    return Inputs((x, y))


def _draw_projector_cosine(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    batch, channels, count = sizes["batch"], sizes["joints"], sizes["projectors"]
    source, target = sizes["side"] ** 2, sizes["teacher side"] ** 2
    feature = torch.randn(batch, channels, source, generator=generator, device=generator.device).to(dtype)
    weight = (
        torch.randn(count, target, source, generator=generator, device=generator.device) / source**0.5
    ).to(dtype)
    bias = torch.randn(count, target, generator=generator, device=generator.device) / 10
    select = torch.randn(batch, count, channels, generator=generator, device=generator.device).softmax(1)
    teacher = (
        torch.randn(batch, channels, target, generator=generator, device=generator.device).relu().to(dtype)
    )
    return Inputs((feature, weight, bias, select, teacher), (feature, weight, bias, select))


def _draw_sau_select(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    batch, channels, side, count = (sizes[name] for name in ("batch", "joints", "side", "projectors"))
    hidden, branches = max(channels // 16, 32), len(_KERNELS)

    def draw(*shape: int, scale: float = 0.3) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device) * scale

    feature = draw(batch, channels, side, side, scale=1.0).to(dtype)
    kernels = [draw(channels, channels, k, k, scale=1 / (k * channels**0.5)).to(dtype) for k in _KERNELS]
    norms = [1 + draw(branches, channels, scale=0.1), draw(branches, channels, scale=0.1)]
    zeros = torch.zeros(branches, channels, device=generator.device)
    statistics = [zeros, zeros + 1]
    heads = [draw(hidden, channels), draw(hidden), draw(count, channels, hidden), draw(count, channels)]
    learn = (feature, *kernels, *norms, *heads)
    return Inputs((feature, *kernels, *norms, *statistics, *heads), learn)


def _products(sizes: Sizes) -> int:
    areas = (sizes["side"] * sizes["teacher side"]) ** 2
    return sizes["batch"] * sizes["joints"] * sizes["projectors"] * areas


def _convolutions(sizes: Sizes) -> int:
    return sizes["batch"] * sizes["joints"] ** 2 * sau_select.taps(sizes["side"])


def _simcc_kl(logits: Tensor, target: Tensor) -> Tensor:
    return ops.simcc_kl(logits, target, sigma=4.0)


def _simcc_kl_eager(logits: Tensor, target: Tensor) -> Tensor:
    return reference.simcc_kl(logits, target, sigma=4.0)


def _decode(x: Tensor, y: Tensor) -> Any:
    return simcc_decode.ours(x, y)


def _decode_eager(x: Tensor, y: Tensor) -> Any:
    return simcc_decode.eager(x, y)


OPS = (
    Op("cca_kl", cca_kl.ours, cca_kl.sums, _draw_cca_kl),
    Op(
        "projector_cosine",
        ops.projector_cosine,
        projector_cosine.eager,
        _draw_projector_cosine,
        _products,
        (1e-3, 2e-2),
    ),
    Op("simcc_decode", _decode, _decode_eager, _draw_simcc_decode),
    Op("simcc_kl", _simcc_kl, _simcc_kl_eager, _draw_simcc_kl),
    # a response that is nearly zero can fall on either side of the ReLU
    Op("sau_select", sau_select.ours, sau_select.eager, _draw_sau_select, _convolutions, (5e-3, 2e-2)),
)
