"""Peak memory that a call takes beyond what it was given.

Read from the kernel's own count of resident pages, so it also sees what is allocated behind torch's back. It is
measured in a process of its own, in which the allocator returns every larger block to the system at once: in an
ordinary one freed memory stays resident and is used again unseen.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from bench import CHECKOUT
from bench.case import COMPILED, Bench, Call

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SMALLEST = 1 << 14  # bytes of an allocation that is seen by itself
_PR_SET_THP_DISABLE = 41


def available() -> bool:
    """Whether this system can reset the peak of a process."""
    return _RESET.exists()


def peak_extra(call: Call, attempts: int = 3) -> int:
    """Bytes by which a call raises the peak of resident memory, its results included; the least of some attempts.

    What the call allocates once and keeps, such as compiled code, is not part of it. Meant for a process that
    `python -m bench.memory` started; elsewhere it finds less.
    """
    call()
    gc.collect()
    return min(_rise(call) for _ in range(attempts))


def measure(bench: Bench, *, quick: bool, compile: bool, only: str = "") -> list[dict[str, int]]:
    """Bytes of each competitor in each case that wants them, in order, measured in a new process."""
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": str(_SMALLEST),
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_TOP_PAD_": "0",
    }
    options = [*(["--quick"] if quick else []), *([] if compile else ["--no-compile"]), "--only", only]
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", bench.name, *options],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {bench.name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _rise(call: Call) -> int:
    _RESET.write_text("5")  # the peak starts again from what is resident now
    before = _kilobytes("VmHWM")
    result = call()
    peak = _kilobytes("VmHWM")
    del result
    return 1024 * (peak - before)


def _kilobytes(field: str) -> int:
    return next(
        int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(field + ":")
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description="print the memory of one benchmark's competitors as JSON")
    parser.add_argument("name")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)  # huge pages round up what is touched
    torch.set_num_threads(1)
    bench: Bench = importlib.import_module(f"bench.{options.name}").BENCH
    found = []
    for case in bench.quick if options.quick else bench.cases:
        if case.memory and options.only in case.title:
            torch.manual_seed(0)
            calls = dict(bench.prepare(case, torch.device("cpu")).calls)
            if not (case.compiled and options.compile):
                calls.pop(COMPILED, None)
            found.append({name: peak_extra(call) for name, call in calls.items()})
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
