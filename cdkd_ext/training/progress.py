"""What a training run shows while it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cdkd_ext.evaluation.coco import AP_MEASURES
from cdkd_ext.evaluation.progress import PlainLines


class TrainingDisplay:
    """A live bar in a terminal, one line per epoch elsewhere; silent in all processes but the first.

    Args:
        total: steps of the whole training.
        quiet: show nothing.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, soft_wrap=True)
        self.live = sys.stdout.isatty() and not quiet
        self.total = total
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("training", total=total, status="")
        self._started = time.perf_counter()
        self._first_step = 0

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, step: int) -> None:
        """Begin at a step, so that the time left is right after resuming."""
        self._first_step = step
        self._started = time.perf_counter()
        self._progress.update(self._task, completed=step)

    def step(self, step: int, epoch: int, values: dict[str, float], rate: float) -> None:
        """Show one step: its losses and the samples per second."""
        status = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        description = f"epoch {epoch + 1}"
        self._progress.update(
            self._task, completed=step, description=description, status=f"{status} {rate:.0f} samples/s"
        )

    def epoch(self, epoch: int, epochs: int, step: int, record: dict[str, float], name: str = "") -> None:
        """Print one line for a finished epoch, behind the name of the run if it is one of several."""
        elapsed = time.perf_counter() - self._started
        left = elapsed / max(1, step - self._first_step) * (self.total - step)
        # in percent, as at the training's end and as PCKh is
        percent = {name: 100 * value if name in AP_MEASURES else value for name, value in record.items()}
        values = "  ".join(f"{name} {value:.4g}" for name, value in percent.items())
        self.console.print(
            f"{name and name + '  '}epoch {epoch + 1}/{epochs}  {values}  left {_duration(left)}",
            highlight=False,
        )


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record."""
    return {name: value for name, value in record.items() if isinstance(value, (int, float))}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


@contextmanager
def footage_progress(
    *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str, int, int], None]]:
    """Show a live bar in a terminal, else `PlainLines`, while footage is looked through; yields what takes each step."""
    if not sys.stdout.isatty():
        yield PlainLines(clock)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for shown in tasks.values():
                    progress.update(shown, visible=False)
                tasks[what] = progress.add_task(what)
            progress.update(tasks[what], completed=done, total=total)

        yield show
