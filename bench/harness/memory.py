"""Peak memory that a call takes beyond what it was given.

Counted to the byte at malloc and free, so it also sees what is allocated behind torch's back; in a process of
its own, because the counting functions must be there before any other.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from typing import Any

import torch

from bench import CHECKOUT
from bench.harness.benchmark import Bench, load
from bench.harness.case import COMPILED, Call
from bench.harness.native import NativeError, build


def missing() -> str | None:
    """Why memory cannot be measured here, if so."""
    if not sys.platform.startswith("linux"):
        return "memory is measured on Linux only"
    try:
        build("allocations.c")
    except NativeError as error:
        return f"to measure memory a C compiler with glibc is needed: {error}"
    return None


def peak_extra(call: Call) -> int:
    """Bytes by which a call raises the peak of allocated memory, its results included.

    What the first call allocates and keeps, such as compiled code, is not part of it.

    Raises:
        RuntimeError: this process was not started by `measure`.
    """
    counter = ctypes.CDLL(None)
    if not hasattr(counter, "allocated_peak"):
        raise RuntimeError("allocations are counted only where bench/harness/allocations.c was preloaded")
    for function in (counter.allocated_now, counter.allocated_peak):
        function.restype = ctypes.c_long
    call()
    gc.collect()
    counter.forget_peak()
    before = counter.allocated_now()
    call()
    return counter.allocated_peak() - before


def measure(bench: Bench, *options: str) -> list[dict[str, int]]:
    """Bytes of each competitor in each case that wants them, in order, measured in a new process.

    Args:
        bench: what to measure.
        options: of this module as a program.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.harness.memory", bench.name, *options],
        cwd=CHECKOUT,
        env=counting(),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {bench.name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def counting() -> dict[str, str]:
    """Environment of a process in which `peak_extra` works."""
    return {**os.environ, "LD_PRELOAD": str(build("allocations.c"))}


def _main() -> None:
    parser = argparse.ArgumentParser(description="print the memory of one benchmark's competitors as JSON")
    parser.add_argument("name")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    del os.environ["LD_PRELOAD"]  # compilers that torch starts need not count
    bench = load(options.name)
    found: list[dict[str, Any]] = []
    for case in bench.select(quick=options.quick, only=options.only):
        if case.memory:
            torch.set_num_threads(case.threads)
            torch.manual_seed(0)
            calls = dict(bench.prepare(case, torch.device("cpu")).calls)
            if not (case.compiled and options.compile):
                calls.pop(COMPILED, None)
            found.append({name: peak_extra(call) for name, call in calls.items()})
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
