from __future__ import annotations

import ctypes

import pytest
import torch

from bench.harness import limits, native

needs_compiler = pytest.mark.skipif(limits.missing() is not None, reason="no C compiler with OpenMP")


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


@needs_compiler
def test_the_exponential_of_the_floor_is_one():
    x = torch.linspace(-86, 86, 4096)
    found = torch.empty_like(x)
    limits.library().exponentials_of(pointer(x), pointer(found), ctypes.c_size_t(4096))
    exact = x.double().exp()
    # x·log2(e) is rounded to float32 once
    assert ((found - exact) / exact).abs().max() < 4e-6
    near = x.abs() < 1
    assert ((found - exact) / exact).abs()[near].max() < 2.5e-7


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 17, 1000])
def test_every_part_takes_any_size(threads, size):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tensors = torch.randn(size), torch.randn(3, size)[:, : size // 2 + 1]
        parts = limits.floor(reads=tensors, writes=tensors, exponentials=size, multiply_adds=size)
        assert list(parts) == ["read", "write", "exponentials", "multiply-adds"]
        for loop in parts.values():
            loop(3)
    finally:
        torch.set_num_threads(before)


@needs_compiler
def test_writing_reaches_the_end_of_its_memory_and_not_beyond():
    guard = torch.full((128,), 7, dtype=torch.uint8)
    offset = -guard.data_ptr() % 64
    limits.library().write_bytes(ctypes.c_void_p(guard.data_ptr() + offset), ctypes.c_size_t(64), 1, 2)
    inside = torch.zeros(128, dtype=torch.bool)
    inside[offset : offset + 64] = True
    assert bool((guard[~inside] == 7).all())
    assert bool((guard[inside] != 7).all())


def test_without_a_compiler_there_is_a_reason_and_no_floor(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler --fast")
    native.build.cache_clear()
    limits.library.cache_clear()
    try:
        assert limits.missing() == (
            "floors need a C compiler with OpenMP: no-such-compiler: No such file or directory"
        )
        assert limits.floor(reads=[torch.ones(3)], exponentials=3) == {}
    finally:
        native.build.cache_clear()
        limits.library.cache_clear()
