"""Names that are imported when they are first asked for."""

from __future__ import annotations

import pytest

from cdkd_ext.late import late_names


def test_a_name_is_imported_once_and_kept():
    namespace = {"__name__": "rooms", "own": 1}
    get, names = late_names(namespace, {"one_line": "errors"})
    assert names() == ["__name__", "one_line", "own"]
    assert "one_line" not in namespace
    value = get("one_line")
    assert value.__module__ == "cdkd_ext.errors" and namespace["one_line"] is value


def test_another_name_is_no_attribute():
    get, _ = late_names({"__name__": "rooms"}, {"one_line": "errors"})
    with pytest.raises(AttributeError, match="module 'rooms' has no attribute 'two_lines'"):
        get("two_lines")
