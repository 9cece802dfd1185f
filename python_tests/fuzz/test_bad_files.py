"""A short run of damaged files, and files that promise more than any memory holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from promises import FILES

pytestmark = pytest.mark.long

HERE = Path(__file__).parent


def said(*words: str | Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    return said(HERE / "promises.py")


@pytest.mark.parametrize("name", FILES)
def test_a_promise_is_refused_before_it_is_kept(outcomes: dict[str, str], name: str) -> None:
    message = outcomes[name]
    assert message.startswith("InputError: ")
    assert len(message.splitlines()) == 1 and len(message) < 2500


def test_damaged_files_are_read_or_refused() -> None:
    assert len(said(HERE / "bad_bytes.py", "--count", "25")) == 10
