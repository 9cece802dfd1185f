"""Times on a GPU by CUDA events, of plain calls and of captured graphs; on a CPU by its clock."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch

Pass = Callable[[], object]


def interleave(passes: Mapping[str, Pass], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds of each pass in each round; a round takes all of them once, in random order."""
    order = list(passes)
    shuffle = random.Random(0).shuffle
    samples: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            samples[name].append(seconds(passes[name], device))
    return samples


def seconds(run: Pass, device: torch.device) -> float:
    """Time of one pass."""
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3


def over(sets: Sequence[Callable[[], object]]) -> Pass:
    """One pass: a call with each input set, so that no call finds its inputs in the cache."""

    def run() -> None:
        for call in sets:
            call()

    return run


def captured(run: Pass) -> Pass:
    """The pass as a CUDA graph, after the warm-up on a side stream that capturing asks for.

    Raises:
        RuntimeError: something in the pass cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        # what failed would be told again to whoever asks next
        with suppress(RuntimeError):
            torch.cuda.synchronize()
        raise
    return graph.replay


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second of a device-to-device copy, read and written bytes together."""
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * size / _typical(lambda: target.copy_(source), device)


def product_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Multiply-adds per second of a square matrix product of random numbers."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return size**3 / _typical(lambda: torch.mm(a, b, out=out), device)


def _typical(run: Pass, device: torch.device) -> float:
    for _ in range(2):
        run()
    return statistics.median(seconds(run, device) for _ in range(5))
