"""Builds the operators under a sanitizer, and starts Python inside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pybind11

import cdkd_ext

CHECKOUT = Path(__file__).resolve().parents[2]
_UNDEFINED = "undefined,float-cast-overflow"
FLAGS = {
    "address": f"-O1 -g1 -fsanitize=address,{_UNDEFINED} -fno-sanitize-recover=all",
    "thread": "-O1 -g1 -fsanitize=thread",
}
_RUNTIMES = {"address": ("libasan.so", "libstdc++.so.6"), "thread": ("libtsan.so", "libstdc++.so.6")}
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=66",  # Python keeps what it allocates
    "UBSAN_OPTIONS": "print_stacktrace=0",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_signal_unsafe=0:ignore_noninstrumented_modules=1",
}


def build(sanitizer: str, folder: Path, sources: Path = CHECKOUT, targets: Sequence[str] = ("_ops",)) -> Path:
    """Build compiled parts of a checkout, without CUDA; returns the folder that holds them in a package."""
    configure = [
        *("cmake", "-G", "Ninja", "-S", sources, "-B", folder / "build"),
        *("-DSKBUILD_PROJECT_VERSION=0", "-DCDKD_CUDA=OFF", "-DCMAKE_BUILD_TYPE=None"),
        f"-DCMAKE_CXX_FLAGS={FLAGS[sanitizer]}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    _run(configure)
    _run(["cmake", "--build", folder / "build", "--target", *targets])
    if sanitizer == "thread":
        source = Path(__file__).with_name("parallel_for.cpp")
        _run(["g++", "-shared", "-fPIC", *FLAGS[sanitizer].split(), source, "-o", folder / "parallel_for.so"])
    return _package(folder)


def _run(command: list[str | Path]) -> None:
    # cmake and ninja of the environment, activated or not
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def _package(folder: Path) -> Path:
    """Link the installed package into `folder`, with what was built there in the place of its own."""
    package = folder / "cdkd_ext"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir()
    entries = {entry.name: entry for entry in Path(cdkd_ext.__file__).parent.iterdir()}
    entries.update({built.name: built for built in (folder / "build").glob("_*.so")})
    for name, entry in entries.items():
        if name != "__pycache__":
            (package / name).symlink_to(entry)
    return folder


def start(sanitizer: str, folder: Path, arguments: list[str], **variables: str) -> subprocess.Popen[str]:
    """Start Python on a script with the operators in `folder`, inside the sanitizer they were built for."""
    preloaded = [_runtime(name) for name in _RUNTIMES[sanitizer]]
    if sanitizer == "thread":
        preloaded.append(str(folder / "parallel_for.so"))
    environment = {**os.environ, **_OPTIONS, "OMP_NUM_THREADS": "1", **variables}
    environment["PYTHONPATH"] = str(folder)
    # ThreadSanitizer knows no randomised layout of memory
    command = ["setarch", "-R", "env", f"LD_PRELOAD={' '.join(preloaded)}", sys.executable, *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _runtime(name: str) -> str:
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def report(output: str) -> str:
    """The first line of a sanitizer's report, empty without one."""
    match = re.search(r".*(ERROR: AddressSanitizer|runtime error:|WARNING: ThreadSanitizer).*", output)
    return match.group(0).strip() if match else ""
