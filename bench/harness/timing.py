"""Time several calls side by side."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from bench.harness.case import Loop

_Timer = Callable[[Loop, int], float]

LONG_ENOUGH = (
    1e-3  # seconds, of which waking a thread takes some hundredths and reading the clock next to nothing
)
MOST_REPEATS = 1_000_000


@dataclass(frozen=True)
class Effort:
    """How long to measure one case: rounds until the seconds are over, within bounds."""

    seconds: float
    fewest: int
    most: int


def interleave(loops: Mapping[str, Loop], effort: Effort, device: torch.device) -> dict[str, list[float]]:
    """Seconds that each of the loops needs per repeat; sample i of all was taken in the same round.

    A round takes each loop once, in random order, and repeats it until the time is long enough to be told.
    What is short also runs once before, untimed, so that what ran before it does not decide what its caches hold.
    """
    time_loop = _time_on_cuda if device.type == "cuda" else _time_on_cpu
    repeats = {name: _repeats(loop, time_loop) for name, loop in loops.items()}
    samples: dict[str, list[float]] = {name: [] for name in loops}
    order = list(loops)
    shuffle = random.Random(0).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        for done in range(effort.most):
            if done >= effort.fewest and time.perf_counter() - started > effort.seconds:
                break
            shuffle(order)
            for name in order:
                if repeats[name] > 1:
                    loops[name](1)
                samples[name].append(time_loop(loops[name], repeats[name]) / repeats[name])
    finally:
        if collecting:
            gc.enable()
    return samples


def _repeats(loop: Loop, time_loop: _Timer) -> int:
    """How often to repeat until the time is long enough."""
    repeats = 1
    while repeats < MOST_REPEATS:
        seconds = time_loop(loop, repeats)
        if seconds < 10 * LONG_ENOUGH:  # one that looks long may have been interrupted
            seconds = min(seconds, time_loop(loop, repeats), time_loop(loop, repeats))
        if seconds >= LONG_ENOUGH:
            break
        repeats *= min(max(2, math.ceil(LONG_ENOUGH / max(seconds, 1e-9))), 100)
    return repeats


def _time_on_cpu(loop: Loop, repeats: int) -> float:
    started = time.perf_counter_ns()
    loop(repeats)
    return (time.perf_counter_ns() - started) * 1e-9


def _time_on_cuda(loop: Loop, repeats: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    loop(repeats)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3
