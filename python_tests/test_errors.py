"""Messages are one line, whatever is in them."""

from __future__ import annotations

import pytest

from cdkd_ext.errors import InputError, fail, one_line


def test_a_name_with_a_line_break_loses_nothing() -> None:
    with pytest.raises(InputError) as caught:
        fail("source", "x\ny.jpg", "an existing file")
    assert one_line(caught.value) == "source: expected an existing file, got x\\ny.jpg"


def test_a_loading_process_says_its_message_alone() -> None:
    trace = "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    for message, expected in (
        ("a: expected b, got c\n", "a: expected b, got c"),
        ("a: got x\ny", "a: got x\\ny"),
    ):
        assert one_line(InputError(f"{trace}cdkd_ext.errors.InputError: {message}")) == expected
