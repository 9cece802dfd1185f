"""What an evaluation shows while it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LINES = 60.0


class PlainLines:
    """Prints to stderr, at most every minute and first after one, how far something is: for logs, which show no bar.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._printed = clock()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take what is done, and how many of how many are."""
        now = self._clock()
        if now - self._printed >= _SECONDS_BETWEEN_LINES:
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
            self._printed = now


@contextmanager
def people_progress(
    total: int, processes: int = 1, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Show a live bar of people in a terminal, else `PlainLines`; yields what takes the number that one process has done."""
    if not sys.stdout.isatty():
        lines = PlainLines(clock)
        yield lambda done: lines("evaluating people", min(done * processes, total), total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("evaluating"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("people"),
        TimeRemainingColumn(),
        transient=True,
    ) as progress:
        task = progress.add_task("evaluating", total=total)
        # the other processes have done about as much
        yield lambda done: progress.update(task, completed=min(done * processes, total))
