"""Compiles the kernels for the CPU: plainly, under sanitizers, or with a bug planted in a copy."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "csrc"
_COMMON = ["-std=gnu++17", "-fPIC", "-Wall", "-Wextra", "-Werror"]
_UNDEFINED = "alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow"
# per variant: flags of all files, further flags of the kernels (not of the scheduler)
_VARIANTS = {
    "plain": (["-O2"], []),
    "address": (
        ["-O1", "-g1", "-DCDKD_ASAN"],
        [f"-fsanitize=address,{_UNDEFINED}", f"-fno-sanitize-recover={_UNDEFINED}"],
    ),
    "thread": (["-O1", "-g1", "-DCDKD_TSAN"], ["-fsanitize=thread"]),
}
_RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


def compiler() -> str | None:
    """Path of g++, whose sanitizers know of fibers."""
    return shutil.which("g++")


def _compile(variant: str, sources: Path, files: list[Path], folder: Path, *further: str) -> dict[str, Path]:
    every, kernels = _VARIANTS[variant]
    running = {}
    for file in files:
        flags = [*_COMMON, *every, *(kernels if file.name != "scheduler.cpp" else [])]
        output = folder / f"{file.parent.name}_{file.name}.o"
        command = [
            compiler(),
            *flags,
            *further,
            f"-I{sources}",
            f"-I{sources}/emulation/include",
            "-x",
            "c++",
            "-c",
            file,
            "-o",
            output,
        ]
        running[output] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for output, process in running.items():
        _, message = process.communicate()
        assert process.returncode == 0, f"{output.name}: {message}"
    return {output.name: output for output in running}


def _link(variant: str, objects: dict[str, Path], library: Path) -> Path:
    subprocess.run(
        [compiler(), "-shared", *_VARIANTS[variant][1], *objects.values(), "-o", library], check=True
    )
    return library


@functools.cache
def _built(variant: str, builds: Path) -> Path:
    """The folder of a variant's objects and library, made by the process that needs them first."""
    folder, unfinished = builds / variant, builds / f"{variant}.unfinished"
    with open(builds / f"{variant}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            files = [*SOURCES.glob("ops/*/*.cu"), *SOURCES.glob("emulation/*.cpp")]
            objects = _compile(variant, SOURCES, files, unfinished)
            _link(variant, objects, unfinished / "emulation.so")
            unfinished.rename(folder)
    return folder


def build(variant: str, builds: Path) -> Path:
    """Compile and link all kernels, once for each folder of builds, whoever shares it; returns the library."""
    return _built(variant, builds) / "emulation.so"


def build_planted(
    variant: str, builds: Path, folder: Path, file: str, old: str, new: str, kernel: str
) -> Path:
    """Build with a text of one file replaced, which must occur once, in the copy of one kernel's sources."""
    sources = folder / "csrc"
    shutil.copytree(SOURCES, sources)
    text = (sources / file).read_text()
    assert text.count(old) == 1, f"{file}: expected once, found {text.count(old)} times: {old}"
    (sources / file).write_text(text.replace(old, new))
    # it makes a small call or two: optimising takes longer than that saves
    planted = _compile(variant, sources, [sources / "ops" / kernel], folder, "-O0")
    objects = {path.name: path for path in _built(variant, builds).glob("*.o")}
    return _link(variant, objects | planted, folder / "emulation.so")


def run_python(
    variant: str, library: Path, arguments: list[str], schedules: int = 10
) -> subprocess.CompletedProcess:
    """Run Python on a library, inside the sanitizer that it was built for."""
    variables = {**os.environ, "CDKD_EMULATION": str(library), "CDKD_SCHEDULES": str(schedules)}
    variables["OMP_NUM_THREADS"] = variables["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, *arguments]
    if variant in _RUNTIMES:
        found = subprocess.run(
            [compiler(), f"-print-file-name={_RUNTIMES[variant]}"], capture_output=True, text=True, check=True
        )
        variables["LD_PRELOAD"] = found.stdout.strip()
        variables["ASAN_OPTIONS"] = "detect_leaks=0"
        variables["TSAN_OPTIONS"] = "halt_on_error=1 exitcode=66 report_signal_unsafe=0"
        command = ["setarch", "-R", *command]  # ThreadSanitizer knows no randomised layout
    return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=Path(__file__).parent)
