"""The long run: `python python_tests/fuzz` (or `make fuzz`) builds, plants bugs, and then finds none of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from planted import BUGS, find
from sanitized import CHECKOUT, build, report, start

_HERE = Path(__file__).parent
_INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


def main() -> None:
    """Parse the command line, run everything, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000, help="under AddressSanitizer and UBSan")
    parser.add_argument("--threaded-calls", type=int, default=100_000, help="under ThreadSanitizer")
    parser.add_argument("--files", type=int, default=2000, help="damaged files of each kind")
    parser.add_argument(
        "--jobs", type=int, default=3, help="processes, each with another instruction set in turn"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=CHECKOUT / "build" / "fuzz")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    results: dict[str, Any] = {"planted": {}}
    for number, bug in enumerate(BUGS):
        results["planted"][bug.name] = find(bug, _made(folder / f"planted{number}"))
        print(f"found: {bug.name}: {results['planted'][bug.name]}", flush=True)
    results["address"] = _ops(arguments, "address", arguments.calls, arguments.jobs, 1)
    results["thread"] = _ops(arguments, "thread", arguments.threaded_calls, 1, 3)
    results["files"] = _files(arguments)
    print(json.dumps(results, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _ops(
    arguments: argparse.Namespace, sanitizer: str, calls: int, jobs: int, threads: int
) -> dict[str, Any]:
    """Share the calls among processes, each with its own part of the sequence and its own instruction set."""
    folder = build(sanitizer, _made(arguments.folder.absolute() / sanitizer), targets=("_ops", "_C"))
    began = time.monotonic()
    each = calls // threads // jobs
    running = []
    for job in range(jobs):
        progress = folder / f"progress{job}"
        options = [
            "--seed",
            arguments.seed,
            "--first",
            job * each,
            "--calls",
            each * threads,
            "--threads",
            threads,
        ]
        words = [str(word) for word in [_HERE / "ops.py", *options, "--progress", progress]]
        isa = _INSTRUCTION_SETS[job % len(_INSTRUCTION_SETS)]
        running.append((start(sanitizer, folder, words, CDKD_ISA=isa), progress))
    counts: Counter[str] = Counter()
    for process, progress in running:
        output, said = process.communicate()
        if process.returncode:
            at = progress.read_text() if progress.exists() else "none"
            sys.exit(f"{sanitizer}, call {at} of seed {arguments.seed}: {report(said)}\n{said[-6000:]}")
        counts.update(json.loads(output.splitlines()[-1]))
    return {"seconds": round(time.monotonic() - began), "findings": 0, **counts}


def _files(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    words = [_HERE / "bad_bytes.py", "--seed", arguments.seed, "--count", arguments.files]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"damaged files: {done.stderr[-3000:]}")
    return {
        "seconds": round(time.monotonic() - began),
        "findings": 0,
        **json.loads(done.stdout.splitlines()[-1]),
    }


if __name__ == "__main__":
    main()
