"""Memory that is kept is not asked for again."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from cdkd_ext.cli import memory

PROGRAM = """
import resource
from cdkd_ext.cli.memory import keep_freed_memory
if {kept}:
    keep_freed_memory()
def use():
    bytearray(300 << 20)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(kept):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(kept=kept)], capture_output=True, text=True, check=True
    )
    return int(finished.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_large_blocks_take_the_place_of_earlier_ones():
    assert _faults(True) < 0.1 * _faults(False)


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.keep_freed_memory()
