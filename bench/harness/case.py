"""The cases of a benchmark, and what is timed side by side in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

OURS = "cdkd_ext"
EAGER = "eager"
COMPILED = "torch.compile"

Call = Callable[[], Any]
Loop = Callable[[int], object]  # does its work that many times
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        group: "paper", or the size that grows in this group.
        sizes: what the benchmark's `prepare` needs to draw its inputs.
        variant: of the op, in words; empty where there is one only.
        dtype: of the inputs, as torch spells it.
        backward: forward and backward instead of forward alone.
        threads: that torch may use.
        compiled: torch.compile takes part; it needs seconds to compile.
        memory: the peak extra memory is measured too.
    """

    group: str
    sizes: Sizes
    variant: str = ""
    dtype: str = "float32"
    backward: bool = True
    threads: int = 1
    compiled: bool = False
    memory: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        return getattr(torch, self.dtype)

    @property
    def title(self) -> str:
        """The case in words, without its threads."""
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        words = [self.variant, sizes, self.dtype, "forward + backward" if self.backward else "forward"]
        return ", ".join(filter(None, words))

    def describe(self) -> dict[str, Any]:
        """What the JSON file says about the case."""
        return {**asdict(self), "sizes": dict(self.sizes), "title": self.title}


@dataclass(frozen=True)
class Setup:
    """One case made ready.

    Attributes:
        calls: what competes, by name; all return the same numbers (tensors, or arrays of numpy) and start with
            `cdkd_ext` and, as the reference, `eager`.
        tolerance: largest ‖x − reference‖ / ‖reference‖ of any result.
        input_bytes: size of all inputs, to compare extra memory with.
        floor: the least that has to be done, in parts whose times add up. A part takes how often to repeat
            itself, because a call can cost more than the part.
        context: timed beside the others for comparison, without results.
        profile: where our time goes, called once after the timing: shares of a whole by name, in named groups.
    """

    calls: Mapping[str, Call]
    tolerance: float
    input_bytes: int
    floor: Mapping[str, Loop] = field(default_factory=dict)
    context: Mapping[str, Loop] = field(default_factory=dict)
    profile: Callable[[], Mapping[str, Mapping[str, float]]] | None = None


def grid(paper: Sequence[Sizes], *, variant: str = "", backward: bool = True) -> Iterator[Case]:
    """The paper's sizes in both types, both passes and on one and two threads."""
    for sizes in paper:
        for dtype in ("float32", "bfloat16"):
            for threads in (1, 2):
                for learns in _passes(backward):
                    # compiling takes most of the time: all of it at the first size only
                    plain = dtype == "float32" and threads == 1
                    compiled = plain or (sizes is paper[0] and (threads == 1 or dtype == "float32"))
                    yield Case("paper", sizes, variant, dtype, learns, threads, compiled, memory=threads == 1)


def smallest(sizes: Sizes, *, variant: str = "", backward: bool = True) -> Iterator[Case]:
    """A batch of one, where the cost of a call shows."""
    for learns in _passes(backward):
        yield Case("one sample", {**sizes, "batch": 1}, variant, backward=learns, compiled=True)


def growth(
    base: Sizes, *, variant: str = "", backward: bool = True, **axes: Sequence[int | Sizes]
) -> Iterator[Case]:
    """Float32 on one thread, one size growing at a time; a value may set several sizes at once."""
    for name, values in axes.items():
        for value in values:
            changed = value if isinstance(value, Mapping) else {name: value}
            yield Case(name, {**base, **changed}, variant, backward=backward)


def _passes(backward: bool) -> tuple[bool, ...]:
    return (False, True) if backward else (False,)


def few(sizes: Sizes, *, variant: str = "", backward: bool = True) -> list[Case]:
    """A case of every kind, at a small size."""
    axis = next(iter(sizes))
    return [
        Case("paper", sizes, variant, backward=False, compiled=True),
        Case("paper", sizes, variant, "bfloat16", backward, memory=True),
        Case("paper", sizes, variant, backward=backward, threads=2, memory=True),
        *(Case(axis, {**sizes, axis: size}, variant, backward=backward) for size in (1, 2)),
    ]


def run_with(
    function: Callable[..., Any], inputs: Sequence[Any], learn: Sequence[Tensor], case: Case
) -> Call:
    """Call `function(*inputs)`, and in a case with backward also differentiate by `learn`.

    The incoming gradient is random, but the same for all competitors: through a softmax a constant one vanishes.
    """
    if not case.backward:

        def forward() -> Any:
            with torch.no_grad():
                return function(*inputs)

        return forward
    for tensor in learn:
        tensor.requires_grad_()
    gradient: Tensor | None = None

    def forward_and_backward() -> Any:
        nonlocal gradient
        result = function(*inputs)
        if gradient is None:
            gradient = torch.randn(result.shape, generator=torch.Generator().manual_seed(0)).to(result)
        return result, *torch.autograd.grad(result, learn, gradient)

    return forward_and_backward


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile for one shape; nothing happens before the first call."""
    ready: Callable[..., Any] | None = None

    def call(*inputs: Any) -> Any:
        nonlocal ready
        if ready is None:
            torch._dynamo.reset()
            ready = torch.compile(function, dynamic=False, fullgraph=True)
        return ready(*inputs)

    return call


def repeated(call: Call) -> Loop:
    """A call as a part of a floor."""

    def loop(repeats: int) -> None:
        for _ in range(repeats):
            call()

    return loop


def total_bytes(*tensors: Tensor) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
