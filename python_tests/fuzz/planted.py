"""Bugs planted in copies of the CPU kernels: each sanitizer has to find its own, or its silence says nothing."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sanitized import CHECKOUT, build, report, start


@dataclass(frozen=True)
class Bug:
    """A bug.

    Attributes:
        name: what is wrong.
        sanitizer: what has to find it.
        room: the op of csrc/ops that is built, alone.
        file: the file of csrc that is changed.
        old: its text, which occurs once.
        new: the text instead.
        said: pattern in the sanitizer's report.
    """

    name: str
    sanitizer: str
    room: str
    file: str
    old: str
    new: str
    said: str


BUGS = (
    Bug(
        "a row read one element too far",
        "address",
        "simcc_kl",
        "ops/simcc_kl/cpu.cpp",
        "for (int64_t i = begin; i < end; ++i) sum += row.log_sum - (row.logits[i] - row.max);",
        "for (int64_t i = begin; i < end + 16; ++i)\n"
        "    sum += i < row.bins ? row.log_sum - (row.logits[i] - row.max) : A(row.logits[i] == row.log_sum + 1);",
        "heap-buffer-overflow",
    ),
    Bug(
        "a mirrored bin's number that overflows",
        "address",
        "simcc_decode",
        "ops/simcc_decode/mirror.h",
        "std::clamp(sum, -1.0, 2.0 * static_cast<double>(bins) - 1)",
        "sum",
        "signed integer overflow|outside the range of representable values",
    ),
    Bug(
        "a buffer that threads share",
        "thread",
        "simcc_kl",
        "ops/simcc_kl/cpu.cpp",
        "    A* exp_buffer = scratch.take(padded);\n",
        "    static A shared[1 << 16];\n    A* exp_buffer = shared;\n",
        "data race",
    ),
)


def plant(bug: Bug, folder: Path) -> Path:
    """Build the bug's room under its sanitizer; returns the folder of the package."""
    copy = folder / "checkout"
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("csrc", "cmake"):
        shutil.copytree(CHECKOUT / name, copy / name)
    shutil.copy(CHECKOUT / "CMakeLists.txt", copy)
    for room in (copy / "csrc" / "ops").iterdir():
        if room.name not in (bug.room, "scale_rows"):
            (room / "cpu.cpp").unlink(missing_ok=True)
    changed = copy / "csrc" / bug.file
    text = changed.read_text()
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.file}: expected once, found {text.count(bug.old)} times: {bug.old}")
    changed.write_text(text.replace(bug.old, bug.new))
    return build(bug.sanitizer, folder, copy)


def find(bug: Bug, folder: Path, calls: int = 3000) -> str:
    """Let the sanitizer find the bug; returns the first line of its report.

    Raises:
        AssertionError: it found nothing, or something else.
    """
    package = plant(bug, folder)
    script = str(Path(__file__).with_name("ops.py"))
    threads = 3 if bug.sanitizer == "thread" else 1
    arguments = [script, "--op", bug.room, "--calls", str(calls), "--threads", str(threads)]
    process = start(bug.sanitizer, package, arguments)
    _, said = process.communicate()
    assert process.returncode != 0 and re.search(bug.said, said), f"{bug.name}: {said[-2000:]}"
    return report(said)
