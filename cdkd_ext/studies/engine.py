"""Runs what is missing of a study: several commands at a time, in order, until all that can finish has finished."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cdkd_ext.errors import InputError, check, one_line
from cdkd_ext.files import check_folder
from cdkd_ext.signals import drop_output
from cdkd_ext.studies.runs import StudyRun, check_request, check_runs, run_state

_LOOK = 0.1  # seconds between looks at the children
_PATIENCE = 120.0  # seconds that children have to keep their state
_LOG, _LOCK = "log.txt", ".lock"
_CLI = ("-m", "cdkd_ext.cli")


def say(line: str) -> None:
    """Print a line at once, into a file or a pipe too."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # no reason to end trainings
        drop_output()


@dataclass(frozen=True)
class RunReport:
    """How a run of a study ended.

    Attributes:
        name: of the run.
        state: "finished" (now or before), "failed", or "left out" because a run that it waits for failed.
        message: the last line that a failed run printed, or what a left-out run waits for.
        seconds: that it took in this call; 0 if it was finished before.
    """

    name: str
    state: Literal["finished", "failed", "left out"]
    message: str = ""
    seconds: float = 0.0


def run_study(
    runs: Iterable[StudyRun],
    folder: str | os.PathLike[str],
    *,
    jobs: int = 1,
    report: Callable[[str], None] = say,
) -> list[RunReport]:
    """Run what is not finished yet, at most `jobs` commands at a time, each with one thread.

    What each run has reached is in its folder alone: finished runs are kept, those that were begun go on where they were,
    whoever stopped them, and a call for the same folder from another terminal takes runs that no other call is at. A run
    that fails is reported and ends no other. Ctrl-C and SIGTERM let every command keep its state before they are raised.

    Args:
        runs: earlier ones start first, once those that they wait for have finished.
        folder: of the study; each run has a folder in it, with its output in log.txt.
        jobs: commands at a time.
        report: is given a line for each run that starts or ends.

    Returns:
        How each run ended, in the order of `runs`.

    Raises:
        InputError: names are not unique, runs wait for each other, or a folder holds a run of other words.

    Example:
        ```python
        from cdkd_ext.studies import StudyRun, run_study

        runs = [
            StudyRun(name=f"s{seed}", row="alone", seed=seed, command=("train", "--data.root", "/lsp", f"--seed={seed}"))
            for seed in range(3)
        ]
        failed = [one for one in run_study(runs, "runs/study", jobs=2) if one.state == "failed"]
        ```
    """
    check(jobs > 0, "jobs", jobs, "a positive number")
    named = check_runs(runs)
    folder = Path(folder).absolute()
    check_folder(folder)
    for run in named.values():
        check_request(run, folder)
    return _Study(named, folder, jobs, report).run()


class _Child:
    """A command that runs, with the lock of its folder, which ends with it.

    Args:
        run: what it is.
        folder: of the study.
        lock: descriptor of the lock, which the command inherits.
    """

    def __init__(self, run: StudyRun, folder: Path, lock: int) -> None:
        self.run, self.own = run, folder / run.name
        self._started = time.monotonic()
        words = run.words(folder)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        with (self.own / _LOG).open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, *_CLI, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # python -m looks in the working folder first, and a checkout there would hide the installed package
                cwd=self.own,
                # a terminal's Ctrl-C is the study's, which ends its children so that they keep their state
                start_new_session=True,
                pass_fds=(lock,),
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def status(self) -> int | None:
        return self._process.poll()

    @property
    def makes_cache(self) -> bool:
        """Whether it may still be making what others share: events are written from the first step on."""
        return not (self.own / "tensorboard").is_dir()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, deadline: float) -> None:
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_line(self) -> str:
        lines = [line for line in (self.own / _LOG).read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it printed nothing"


class _Study:
    """One call of `run_study`."""

    def __init__(
        self, runs: dict[str, StudyRun], folder: Path, jobs: int, report: Callable[[str], None]
    ) -> None:
        self._runs, self._folder, self._jobs, self._report = runs, folder, jobs, report
        self._done: dict[str, RunReport] = {}
        self._children: dict[str, _Child] = {}

    def run(self) -> list[RunReport]:
        self._note_finished()
        kept = len(self._done)
        if kept:
            self._report(f"{kept} of {len(self._runs)} runs are finished already")
        try:
            while len(self._done) < len(self._runs):
                self._leave_out()
                self._start()
                self._reap()
                if len(self._done) < len(self._runs):
                    time.sleep(_LOOK)
        finally:
            self._end_children()
        return [self._done[name] for name in self._runs]

    def _waiting(self) -> list[StudyRun]:
        return [
            run for name, run in self._runs.items() if name not in self._done and name not in self._children
        ]

    def _note_finished(self) -> None:
        for run in self._waiting():
            if run_state(run, self._folder) == "finished":
                self._done[run.name] = RunReport(run.name, "finished")

    def _leave_out(self) -> None:
        for run in self._waiting():
            lacking = [
                name for name in run.after if name in self._done and self._done[name].state != "finished"
            ]
            if lacking:
                self._end(RunReport(run.name, "left out", f"it waits for {', '.join(lacking)}"))

    def _start(self) -> None:
        for run in self._waiting():
            if len(self._children) >= self._jobs:
                return
            if self._ready(run):
                self._start_one(run)

    def _ready(self, run: StudyRun) -> bool:
        if not all(name in self._done for name in run.waits_for):
            return False
        return run.cache is None or not any(
            child.run.cache == run.cache and child.makes_cache for child in self._children.values()
        )

    def _start_one(self, run: StudyRun) -> None:
        own = self._folder / run.name
        try:
            own.mkdir(parents=True, exist_ok=True)
            lock = _lock(own / _LOCK)
        except OSError as error:
            self._end(
                RunReport(run.name, "failed", f"{own}: expected a folder that can be written, got {error}")
            )
            return
        if lock is None:
            # another call is at it: perhaps it has finished when the lock is free
            return
        try:
            if run_state(run, self._folder) == "finished":
                self._end(RunReport(run.name, "finished"))
                return
            goes_on = run_state(run, self._folder) == "begun"
            self._children[run.name] = _Child(run, self._folder, lock)
            self._report(f"{run.name}: {'goes on' if goes_on else 'starts'}")
        except InputError as error:
            self._end(RunReport(run.name, "failed", one_line(error)))
        finally:
            os.close(lock)

    def _reap(self) -> None:
        for name, child in list(self._children.items()):
            if child.status is None:
                continue
            del self._children[name]
            finished = child.status == 0 and run_state(child.run, self._folder) == "finished"
            state: Literal["finished", "failed"] = "finished" if finished else "failed"
            self._end(RunReport(name, state, "" if finished else child.last_line(), child.seconds))

    def _end(self, ended: RunReport) -> None:
        self._done[ended.name] = ended
        count = f"{len(self._done)} of {len(self._runs)}"
        rest = f": {ended.message}" if ended.message else f" in {ended.seconds:.0f} s"
        self._report(f"{ended.name}: {ended.state}{rest} ({count})")

    def _end_children(self) -> None:
        children = list(self._children.values())
        if not children:
            return
        for child in children:
            child.terminate()
        try:
            deadline = time.monotonic() + _PATIENCE
            for child in children:
                child.wait(deadline)
        except KeyboardInterrupt:
            # a second one is impatient
            for child in children:
                child.wait(0)
            raise
        finally:
            self._children.clear()


def _lock(path: Path) -> int | None:
    """Take a lock that whoever inherits the descriptor holds too; None where another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # not every network's file system has locks
        return descriptor
    return descriptor
