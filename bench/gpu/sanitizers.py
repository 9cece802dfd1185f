"""Stage 4: every op, forward and backward, under compute-sanitizer; a dry run takes the CPU's emulation of the kernels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from bench.gpu.environment import where
from bench.gpu.report import Findings, stage_options

# initcheck must see every write, so it watches torch's kernels too; the others look at ours alone
TOOLS = {"memcheck": True, "racecheck": True, "synccheck": True, "initcheck": False}
_COUNT = re.compile(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)")


def main() -> None:
    """Run the tools one after the other, each within its share of the time that is left."""
    options, findings = stage_options("sanitizers")
    if options.dry_run:
        emulate(findings)
        return
    program = where("compute-sanitizer")
    if program is None:
        findings.write("not run: there is no compute-sanitizer")
        return
    ends = time.monotonic() + options.limit - 2
    table = findings.table("Findings", ["tool", "found", "seconds"])
    worked, found = 0, 0
    for place, tool in enumerate(TOOLS):
        share = (ends - time.monotonic()) / (len(TOOLS) - place)
        started = time.monotonic()
        text = run_tool(program, tool, share)
        counted = _COUNT.findall(text)
        number = sum(int(errors or hazards) for errors, hazards in counted)
        worked += bool(counted)
        found += number
        table["rows"].append(
            [tool, outcome(text, number, bool(counted)), f"{time.monotonic() - started:.0f}"]
        )
        findings.write(f"{found} findings; {worked} of {len(TOOLS)} tools ran to the end")
    sys.exit(found > 0)


def run_tool(program: str, tool: str, seconds: float) -> str:
    """The output of a tool over all ops."""
    ours_alone = ["--kernel-regex", "kns=cdkd"] if TOOLS[tool] else []
    # timeout ends the program under the tool as well
    command = ["timeout", "--kill-after=1", f"{max(seconds, 1):.0f}", program, "--tool", tool, *ours_alone]
    done = subprocess.run(
        [*command, sys.executable, "-m", "bench.gpu.exercise"],
        # a cached block of memory would hide a read or a write beyond a tensor
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    text = done.stdout + (f"\nstopped after {seconds:.0f} s" if done.returncode in (124, 137) else "")
    print(text, flush=True)
    return text


def outcome(text: str, number: int, counted: bool) -> str:
    """A tool's result in words."""
    if counted:
        return str(number)
    lines = [line for line in text.splitlines() if line.strip()]
    return f"did not end: {lines[-1][:200]}" if lines else "did not start"


def emulate(findings: Findings) -> None:
    """Run every kernel on the CPU, where divergence, deadlocks and unwritten shared memory are errors too."""
    from bench.gpu.emulated import launches

    table = findings.table("Kernels run on the CPU", ["pass", "launches", "bytes over the fewest"])
    table["rows"] += launches()
    findings.write(f"{len(table['rows'])} passes ran in the CPU's emulation, nothing found")


if __name__ == "__main__":
    main()
