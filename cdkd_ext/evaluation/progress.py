"""What an evaluation shows while it goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def people_progress(total: int, processes: int = 1) -> Iterator[Callable[[int], None]]:
    """Show a live bar of people in a terminal; yields what takes the number that one of the processes has done."""
    if not sys.stdout.isatty():
        yield lambda done: None
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
