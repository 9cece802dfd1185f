from __future__ import annotations

import pytest

from bench.harness import memory

pytestmark = pytest.mark.skipif(memory.missing() is not None, reason="allocations cannot be counted here")

SCRIPT = """
import ctypes, threading
import numpy as np
import torch
from bench.harness.memory import peak_extra

MB = 1 << 20
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.realloc.restype = libc.aligned_alloc.restype = ctypes.c_void_p

def behind_torch(take):
    def call():
        pointer = ctypes.c_void_p(take())
        libc.free(pointer)
    return call

def grow():
    return libc.realloc(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(MB))), ctypes.c_size_t(6 * MB))

def one_after_the_other():
    for _ in range(5):
        torch.empty(3 * MB, dtype=torch.uint8)

def at_once():
    return [torch.empty(2 * MB, dtype=torch.uint8) for _ in range(3)]

def elsewhere():
    thread = threading.Thread(target=at_once)
    thread.start()
    thread.join()

kept = []
for expected, call in [
    (4, lambda: torch.zeros(MB)),
    (3, one_after_the_other),
    (6, at_once),
    (6, elsewhere),
    (5, lambda: np.ones(5 * MB, dtype=np.uint8)),
    (7, behind_torch(lambda: libc.malloc(ctypes.c_size_t(7 * MB)))),
    (8, behind_torch(lambda: libc.aligned_alloc(ctypes.c_size_t(64), ctypes.c_size_t(8 * MB)))),
    (6, behind_torch(grow)),
    (0, lambda: kept or kept.append(torch.zeros(9 * MB))),  # once, by the first call
]:
    print(expected, peak_extra(call) / MB)
"""


def test_known_allocations(python):
    lines = python("-c", SCRIPT, **memory.counting()).splitlines()
    assert len(lines) == 9
    for line in lines:
        expected, found = map(float, line.split())
        assert found == pytest.approx(expected, abs=0.05), lines


def test_an_ordinary_process_cannot_count():
    with pytest.raises(RuntimeError, match="preloaded"):
        memory.peak_extra(lambda: None)
