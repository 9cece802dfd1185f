"""Ctrl-C and SIGTERM that wait for a moment at which they leave nothing half done, and output that nobody reads."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class HeldSignals:
    """The signals that arrived in a block of `signals_held`; true while one waits."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[int, FrameType | None], Any], int, FrameType | None]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hold(
        self, handler: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None
    ) -> None:
        """Keep a signal until `release` gives it to its handler."""
        self._waiting.append((handler, number, frame))

    def release(self) -> None:
        """Give what waits to the handlers; what one of them raises comes out of here."""
        waiting, self._waiting = self._waiting, []
        for handler, number, frame in waiting:
            handler(number, frame)


@contextmanager
def signals_held(*numbers: int, once: bool = False) -> Iterator[HeldSignals]:
    """Let signals that have a handler in Python wait for the end of the block, or for `HeldSignals.release`.

    Outside of the main thread, which alone may set handlers, nothing is held.

    Args:
        numbers: the signals, such as `signal.SIGTERM`.
        once: hold the first signal alone, so that whoever cannot wait sends another.
    """
    held = HeldSignals()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    found = {number: signal.getsignal(number) for number in numbers}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}

    def receive(number: int, frame: FrameType | None) -> None:
        impatient = once and bool(held)
        held.hold(handlers[number], number, frame)
        if impatient:
            held.release()

    for number in handlers:
        signal.signal(number, receive)
    try:
        yield held
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    held.release()


def drop_output() -> None:
    """Send what is printed from now on nowhere: whoever read it has gone away."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
