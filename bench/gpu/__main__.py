"""Prove and time everything on this machine's GPU; without one, a dry run of the same script on the CPU."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import CHECKOUT
from bench.gpu.report import CUT_OFF, FAILED, OK, SKIPPED, Result, print_table, read_result, write_report

ALLOWED = 300.0  # seconds for all stages
_GRACE = 3.0  # seconds to end in after being asked to
_PATIENCE = 4  # of a dry run, in limits: a busy CPU proves no less for being slow


@dataclass(frozen=True)
class Stage:
    """A module of bench/gpu that a process of its own runs.

    Attributes:
        name: of the module.
        title: one line.
        limit: seconds after which it is cut off.
        needs: stages without whose success it is skipped.
        module: that runs it; empty for bench.gpu.NAME.
    """

    name: str
    title: str
    limit: float
    needs: tuple[str, ...] = ()
    module: str = ""


# what proves comes before what times; the last one takes the time that is left
STAGES = (
    Stage("environment", "What is here, and what is missing", 25),
    Stage("build", "Build for the GPU that is here", 90, ("environment",)),
    Stage("tests", "`pytest -m gpu`", 60, ("build",)),
    Stage("sanitizers", "Ops under compute-sanitizer", 60, ("build",)),
    Stage("step", "One training step of distillation", 60, ("build",)),
    Stage("ops", "Ops against eager, torch.compile, Triton and the floor", 300, ("build",)),
)


def main() -> None:
    """Run the stages and end with one table."""
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--stage", action="append", choices=names, help="only this one; can be repeated")
    parser.add_argument(
        "--dry-run", action="store_true", help="on the CPU, at tiny sizes, even where there is a GPU"
    )
    parser.add_argument("--output", type=Path, default=CHECKOUT / "runs" / "gpu", metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=ALLOWED, help="for everything (default: 300)")
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    dry_run = options.dry_run or not has_gpu()
    if dry_run:
        print("dry run on the CPU: its times say nothing about a GPU", flush=True)
    results = run_stages(options.stage or names, output, options.seconds, dry_run=dry_run)
    print_table(results)
    print(f"\n{output / 'report.md'}")
    sys.exit(any(result.status in (FAILED, CUT_OFF) for result in results))


def run_stages(chosen: list[str], output: Path, seconds: float, *, dry_run: bool) -> list[Result]:
    """Run stages in order; every result is written as soon as it is known, even that of a stage that is cut off."""
    patience = _PATIENCE if dry_run else 1
    ends = time.monotonic() + seconds * patience
    results: list[Result] = []
    for stage in STAGES:
        if stage.name not in chosen:
            continue
        failed = [done.stage for done in results if done.stage in stage.needs and done.status != OK]
        left = ends - time.monotonic() - _GRACE
        if failed:
            result = Result(stage.name, stage.title, SKIPPED, f"needs {', '.join(failed)}")
        elif left < 1:
            result = Result(stage.name, stage.title, SKIPPED, f"no time left of {seconds:.0f} s")
        else:
            print(f"{stage.name}: {stage.title} …", flush=True)
            result = run_stage(stage, output, min(stage.limit * patience, left), dry_run=dry_run)
        results.append(result)
        print(f"{stage.name}: {result.status}, {result.summary}", flush=True)
        write_report(results, output, dry_run=dry_run)
    return results


def run_stage(stage: Stage, output: Path, limit: float, *, dry_run: bool) -> Result:
    """Run one stage in a process group of its own, which ends with its time limit."""
    file = output / f"{stage.name}.json"
    file.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        stage.module or f"bench.gpu.{stage.name}",
        "--output",
        str(output),
        "--limit",
        f"{limit:.0f}",
    ]
    started = time.monotonic()
    with (output / f"{stage.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(["--dry-run"] if dry_run else [])],
            cwd=CHECKOUT,
            env=environment(output, dry_run=dry_run),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        cut_off = False
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            cut_off, code = True, 0
        finally:
            _end(process)
    status, found = (CUT_OFF if cut_off else FAILED if code else OK), read_result(file)
    if status != OK or not found:
        found.setdefault("summary", _last_line(output / f"{stage.name}.log") or f"exit status {code}")
        status = FAILED if status == OK else status
    return Result(
        stage.name,
        stage.title,
        status,
        str(found.get("summary", "")),
        time.monotonic() - started,
        found.get("tables", []),
        found.get("notes", []),
    )


def environment(output: Path, *, dry_run: bool) -> dict[str, str]:
    """Variables of a stage: the package that the build stage installed comes first."""
    site = output / "site"
    paths = [] if dry_run or not site.is_dir() else [str(site)]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def has_gpu() -> bool:
    """Whether torch sees a GPU; asked in a process of its own, which leaves the GPU to the stages."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a stage's process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_GRACE / 2)
        except (ProcessLookupError, PermissionError):
            return
        except subprocess.TimeoutExpired:
            continue


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


if __name__ == "__main__":
    main()
