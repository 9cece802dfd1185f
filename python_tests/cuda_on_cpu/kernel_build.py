"""Compiles the kernels for the CPU: plainly, under sanitizers, or with a bug planted in a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "csrc"
COMMON = ["-std=gnu++17", "-fPIC", "-DCDKD_CUDA_ON_CPU", "-Wall", "-Wextra", "-Werror", "-fno-math-errno", "-fno-trapping-math"]
# per variant: flags of all files, further flags of the kernels (not of the scheduler)
VARIANTS = {
    "plain": (["-O2"], []),
    "address": (
        ["-O1", "-g", "-DCDKD_ASAN"],
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    ),
    "thread": (["-O1", "-g", "-DCDKD_TSAN"], ["-fsanitize=thread"]),
}
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


def compiler() -> str | None:
    """Path of g++, whose sanitizers know of fibers."""
    return shutil.which("g++")


def build(variant: str, folder: Path, *, sources: Path = SOURCES) -> Path:
    """Compile and link all kernels below `sources`; returns the library."""
    every, kernels = VARIANTS[variant]
    folder.mkdir(parents=True, exist_ok=True)
    running = []
    for source in [*sources.glob("cuda/*.cu"), *sources.glob("cuda/emulation/*.cpp")]:
        output = folder / f"{source.name}.o"
        flags = [*COMMON, *every, *(kernels if source.name != "scheduler.cpp" else [])]
        command = [compiler(), *flags, f"-I{sources}", "-x", "c++", "-c", source, "-o", output]
        running.append((output, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
    for output, process in running:
        _, message = process.communicate()
        assert process.returncode == 0, f"{output.name}: {message}"
    library = folder / "emulation.so"
    link = [compiler(), "-shared", *kernels, *(output for output, _ in running), "-o", library]
    subprocess.run(link, check=True)
    return library


def planted(source: str, change: Mapping[str, str], folder: Path) -> Path:
    """Copy the sources with some text of one file replaced; each text must occur exactly once."""
    copy = folder / "csrc"
    shutil.copytree(SOURCES, copy)
    path = copy / source
    text = path.read_text()
    for old, new in change.items():
        assert text.count(old) == 1, f"{source}: expected once, found {text.count(old)} times: {old}"
        text = text.replace(old, new)
    path.write_text(text)
    return copy


def environment(variant: str, library: Path) -> dict[str, str]:
    """Environment in which a Python process can load the library of a sanitizer."""
    variables = {**os.environ, "CDKD_EMULATION": str(library), "OMP_NUM_THREADS": "1"}
    if variant in RUNTIMES:
        found = subprocess.run(
            [compiler(), f"-print-file-name={RUNTIMES[variant]}"], capture_output=True, text=True, check=True
        )
        variables |= {
            "LD_PRELOAD": found.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "TSAN_OPTIONS": "halt_on_error=1 report_signal_unsafe=0",
        }
    return variables
