"""Runs benchmarks from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from bench.harness import limits, machine, memory
from bench.harness.agreement import DisagreementError, difference
from bench.harness.benchmark import Bench
from bench.harness.case import COMPILED, EAGER, Case, repeated
from bench.harness.table import print_bench, print_machine
from bench.harness.timing import Effort, interleave
from cdkd_ext.files import write_json

FEWEST, MOST = 5, 60  # rounds
QUICK = Effort(seconds=0.0, fewest=3, most=3)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of every benchmark."""
    parser.add_argument("--quick", action="store_true", help="few small cases and samples: to try it out")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose title contains TEXT")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="to spend on each case at least (default: 1)"
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    parser.add_argument("--json", metavar="FILE", help="write every raw sample")
    parser.add_argument("--plot", metavar="FILE", help="draw how the cost grows (needs matplotlib)")
    parser.add_argument("--device", default="cpu", type=torch.device, help="cpu or cuda")


def main(bench: Bench) -> None:
    """Run one benchmark as a program."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{bench.name}", description=bench.title)
    add_options(parser)
    run([bench], parser.parse_args())


def run(benches: Sequence[Bench], options: argparse.Namespace) -> None:
    """Measure, print and write what the options ask for."""
    wait_passively()
    found: dict[str, Any] = {"machine": machine.describe(), "benches": []}
    print_machine(found["machine"])
    for reason in filter(None, (limits.missing(), memory.missing())):
        print(reason)
    for bench in benches:
        found["benches"].append(measure(bench, options))
        print_bench(found["benches"][-1])
        sys.stdout.flush()
        if options.json:  # after each: an interrupted run has measured something
            write_json(found, options.json)
    if options.plot:
        from bench.harness.plot import draw

        draw(found, options.plot)


def wait_passively() -> None:
    """Start this program again with sleeping instead of spinning threads, unless it was started so.

    Where all cores are busy, as with two threads on two cores, a spinning thread takes the core from the one it
    waits for. OpenMP reads this when it is loaded.
    """
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """All cases of a benchmark, as the JSON file holds them."""
    cases = bench.select(quick=options.quick, only=options.only)
    rows: list[dict[str, Any]] = []
    for case in cases:
        if sys.stderr.isatty():
            print(f"{bench.name}: {len(rows) + 1} of {len(cases)}", end="\r", file=sys.stderr)
        rows.append(_measure_case(bench, case, options))
    if _measures_memory(options):
        flags = [f"--only={options.only}", *(["--quick"] if options.quick else [])]
        flags += [] if options.compile else ["--no-compile"]
        wanted = [row for row in rows if row["memory"]]
        for row, extra in zip(wanted, memory.measure(bench, *flags), strict=True):
            row["extra_bytes"] = extra
    return {"name": bench.name, "title": bench.title, "cases": rows}


def _measures_memory(options: argparse.Namespace) -> bool:
    return options.memory and options.device.type == "cpu" and not memory.missing()


def _measure_case(bench: Bench, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    setup = bench.prepare(case, options.device)
    calls = dict(setup.calls)
    if not (case.compiled and options.compile):
        calls.pop(COMPILED, None)
    reference = calls[EAGER]()
    differences = {name: difference(call(), reference) for name, call in calls.items()}
    for name, found in differences.items():
        if found > setup.tolerance:
            raise DisagreementError(
                f"{bench.name}, {case.title}: {name} differs from {EAGER} by {found:.2g}, "
                f"more than {setup.tolerance:.2g}"
            )
    loops = {name: repeated(call) for name, call in calls.items()}
    effort = QUICK if options.quick else Effort(options.seconds, FEWEST, MOST)
    samples = interleave({**loops, **setup.floor, **setup.context}, effort, options.device)
    return {
        **case.describe(),
        "input_bytes": setup.input_bytes,
        "differences": differences,
        "samples": {name: samples[name] for name in calls},
        "floor": {name: samples[name] for name in setup.floor},
        "context": {name: samples[name] for name in setup.context},
        **({"profile": setup.profile()} if setup.profile else {}),
    }
