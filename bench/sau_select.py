"""Scale-adaptive unit: weights of the projectors from several receptive fields."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness.benchmark import Bench
from bench.harness.case import (
    COMPILED,
    EAGER,
    OURS,
    Call,
    Case,
    Setup,
    compiled,
    few,
    grid,
    growth,
    repeated,
    run_with,
    smallest,
    total_bytes,
)
from bench.harness.goals import Goal, at, faster_than, one_sample
from bench.harness.limits import floor
from bench.harness.run import main
from cdkd_ext import ops
from cdkd_ext.ops import reference

KERNELS = (3, 5, 7, 7)
PROJECTORS = 3
STUDENT_64 = {"batch": 32, "joints": 17, "side": 16}  # a quarter of the input's side
STUDENT_32 = {"batch": 32, "joints": 17, "side": 8}


def ours(feature: Tensor, *parameters: Tensor) -> Tensor:
    """The compiled op."""
    return ops.sau_select(feature, parameters[: len(KERNELS)], *parameters[len(KERNELS) :], training=True)


def eager(feature: Tensor, *parameters: Tensor) -> Tensor:
    """The reference."""
    return reference.sau_select(
        feature, parameters[: len(KERNELS)], *parameters[len(KERNELS) :], training=True
    )


def layers(feature: Tensor, *parameters: Tensor) -> Tensor:
    """What one writes with torch's layers: convolution, batch norm, ReLU and mean of each branch."""
    feature = feature.float()
    kernels, norms, rest = parameters[:4], parameters[4:8], parameters[8:]
    squeeze_weight, squeeze_bias, select_weight, select_bias = rest
    pooled = []
    for kernel, weight, bias, mean, variance in zip(kernels, *norms, strict=True):
        response = F.conv2d(feature, kernel.float(), padding="same")
        normalised = F.batch_norm(response, mean, variance, weight, bias, training=True)
        pooled.append(normalised.relu().mean((2, 3)))
    squeezed = F.linear(sum(pooled[1:], pooled[0]), squeeze_weight, squeeze_bias).relu()
    return torch.softmax(
        torch.stack([F.linear(squeezed, *one) for one in zip(select_weight, select_bias, strict=True)], 1), 1
    )


def prepare(case: Case, device: torch.device) -> Setup:
    """A feature map and all parameters, in training: batch statistics, running ones updated."""
    batch, channels, side = (case.sizes[name] for name in ("batch", "joints", "side"))
    hidden, branches = max(channels // 16, 32), len(KERNELS)

    def draw(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        return (torch.randn(shape, device=device) * scale).to(dtype)

    kernels = [
        draw(channels, channels, k, k, scale=1 / (k * channels**0.5), dtype=case.torch_dtype) for k in KERNELS
    ]
    learn = [
        draw(batch, channels, side, side, dtype=case.torch_dtype),
        *kernels,
        1 + draw(branches, channels, scale=0.1),
        draw(branches, channels, scale=0.1),
    ]
    statistics = [
        torch.zeros(branches, channels, device=device),
        torch.ones(branches, channels, device=device),
    ]
    heads = [
        draw(hidden, channels, scale=0.3),
        draw(hidden, scale=0.3),
        draw(PROJECTORS, channels, hidden, scale=0.3),
        draw(PROJECTORS, channels, scale=0.3),
    ]
    inputs = (*learn, *statistics, *heads)
    competitors = {OURS: ours, EAGER: eager, "eager, torch's layers": layers, COMPILED: compiled(eager)}
    return Setup(
        calls={
            name: run_with(function, inputs, (*learn, *heads), case) for name, function in competitors.items()
        },
        # a response that is nearly zero can fall on either side of the ReLU
        tolerance=5e-3 if case.dtype == "float32" else 2e-2,
        input_bytes=total_bytes(*inputs),
        floor=floor(
            reads=inputs,
            writes=(*learn, *heads) if case.backward else (),
            multiply_adds=(3 if case.backward else 1) * batch * channels**2 * taps(side),
        ),
        context={"its convolutions in torch": repeated(_convolutions(learn[0], kernels, case))},
    )


def taps(side: int) -> int:
    """Pairs of a pixel and a kernel's tap that meet inside the map, over all kernels."""
    return sum((side * k - k // 2 * (k // 2 + 1)) ** 2 for k in KERNELS)


def _convolutions(feature: Tensor, kernels: list[Tensor], case: Case) -> Call:
    gradient = torch.randn_like(feature)

    def convolve() -> None:
        with torch.set_grad_enabled(case.backward):
            responses = [F.conv2d(feature, kernel, padding="same") for kernel in kernels]
        if case.backward:
            torch.autograd.grad(responses, [feature, *kernels], [gradient] * len(kernels))

    return convolve


PAPER = "sau_select, training, forward + backward, B = 32, C = 17, 16 × 16"
LEARNS = at(STUDENT_64, backward=True)

BENCH = Bench(
    "sau_select",
    "weights of three projectors from four branches, in training",
    cases=[
        *grid([STUDENT_64, STUDENT_32]),
        *smallest(STUDENT_64),
        *growth(STUDENT_64, batch=[1, 4, 16, 64, 256], joints=[16, 17, 133], side=[4, 8, 16, 32]),
    ],
    quick=few({"batch": 4, "joints": 3, "side": 8}),
    prepare=prepare,
    goals=[
        Goal(f"{PAPER}: against eager", LEARNS, faster_than(EAGER), 2),
        Goal(f"{PAPER}: against torch.compile", LEARNS, faster_than(COMPILED), 1.3),
        one_sample("sau_select"),
    ],
)

if __name__ == "__main__":
    main(BENCH)
