"""The structs of the kernels and their mirrors in Python: a difference is refused before anything runs."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np
import pytest

from cdkd_ext.emulation import library, simcc_kl
from cdkd_ext.emulation.library import Emulation, EmulationError, Mirror, Rows

FIELDS = simcc_kl.SimccKl._fields_


def drifted(fields: Any) -> type[Mirror]:
    class Drifted(Mirror):
        struct = "SimccKl"
        _fields_: ClassVar = fields

    return Drifted


@pytest.fixture(autouse=True)
def own_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test mirrors is gone after it."""
    monkeypatch.setattr(library, "_mirrors", list(library._mirrors))


def swapped() -> Any:
    fields = list(FIELDS)
    fields[3], fields[5] = fields[5], fields[3]
    return fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            swapped(),
            r"SimccKl.smoothing: the kernels have 8 bytes at 40, its mirror in Python has 8 bytes at",
        ),
        (FIELDS[:1] + FIELDS[2:], r"SimccKl.target: the kernels have 16 bytes at 16, .* has none"),
        (FIELDS[:-1], r"SimccKl.gradient: the kernels have 16 bytes at .*, .* has none"),
        ([*FIELDS, ("more", ctypes.c_int32)], r"SimccKl.more: the kernels have none, .* has 4 bytes at"),
        ([("logits", ctypes.c_int64), *FIELDS[1:]], r"SimccKl.logits: the kernels have 16 bytes at 0, .* 8"),
    ],
    ids=["swapped", "missing", "missing at the end", "too many", "another type"],
)
def test_a_drifted_mirror_is_refused(emulation: Emulation, fields: Any, message: str) -> None:
    mirror = drifted(fields)
    with pytest.raises(EmulationError, match=message):
        Emulation(emulation.path)
    with pytest.raises(
        EmulationError, match=message
    ):  # also one that is defined after the library was loaded
        emulation.call("simcc_kl", mirror())


def test_a_struct_that_the_kernels_do_not_have(emulation: Emulation) -> None:
    class Unknown(Mirror):
        _fields_: ClassVar = [("rows", Rows)]

    with pytest.raises(EmulationError, match="Unknown: the emulation has no struct of this name"):
        Emulation(emulation.path)


def test_a_refused_launch_is_the_last(emulation: Emulation) -> None:
    """Too many hidden units for the first kernel of sau_select's backward pass, not for those of the forward one."""
    from cdkd_ext.emulation.sau_select import sau_select

    B, C, d = 1, 2, 12286
    shapes = [(B, C, 3, 3), (1, C), (1, C), (1, C), (1, C), (d, C), (d,), (2, C, d), (2, C), (B, 2, C)]
    feature, *parameters, gradient = (np.ones(shape, np.float32) for shape in shapes)
    emulation.configure()
    emulation.clear_launches()
    arguments = (emulation, feature, [np.ones((C, C, 3, 3), np.float32)], *parameters)
    sau_select(*arguments, training=True)
    assert len(emulation.launches()) == 3
    emulation.clear_launches()
    with pytest.raises(
        EmulationError, match=r"sau_select_pooled: a device refuses this launch: .* \d+ bytes"
    ):
        sau_select(*arguments, gradient, training=True)
    assert [launch.kernel for launch in emulation.launches()] == [
        "sau_select_convolve",
        "sau_select_statistics",
        "sau_select_select",
    ]
