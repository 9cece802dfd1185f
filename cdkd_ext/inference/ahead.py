"""What comes next is made ready while what has come is worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_SECONDS_BETWEEN_LOOKS = 0.1  # of a thread that waits, at whether it is still needed
_SECONDS_TO_END = 1.0


class _End:
    """The last thing in a queue, with what ended it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def read_ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yield what an iterator gives, which a thread asks for in advance.

    Args:
        items: is used, and closed, in the thread alone; if it hangs, such as at a camera that gives nothing, it is left behind.
        depth: how many wait at most.

    Raises:
        BaseException: whatever `items` raises, at its place.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: Item | _End) -> bool:
        while not ended.is_set():
            try:
                waiting.put(item, timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as raised:  # the reader of the queue raises it again
            error = raised
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        put(_End(error))

    thread = threading.Thread(target=read, name="cdkd-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        ended.set()
        thread.join(_SECONDS_TO_END)
