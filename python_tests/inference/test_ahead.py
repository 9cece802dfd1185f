"""Reading ahead: the same items, errors at their place, and no thread that stays."""

from __future__ import annotations

import threading

import pytest

from cdkd_ext.inference.ahead import read_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "cdkd-read-ahead"]


def test_items_come_in_order():
    assert list(read_ahead(iter(range(50)))) == list(range(50)) and not threads()
    assert list(read_ahead(iter(()))) == []


def test_no_more_is_read_than_may_wait():
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    ahead = read_ahead(items(), depth=2)
    assert next(ahead) == 0
    ahead.close()
    # the one that was taken, two that waited, and one in the reader's hand
    assert len(read) <= 4 and not threads()


def test_what_is_read_is_closed_in_its_thread():
    closed = []

    def items():
        try:
            yield from range(10)
        finally:
            closed.append(threading.current_thread().name)

    ahead = read_ahead(items())
    next(ahead)
    ahead.close()
    assert closed == ["cdkd-read-ahead"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_at_its_place(error):
    def items():
        yield 1
        raise error("here")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(error, match="here"):
        next(ahead)
    assert not threads()
