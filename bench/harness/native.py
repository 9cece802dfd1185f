"""Compiles the C sources beside it for this processor when they are needed."""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


class NativeError(RuntimeError):
    """There is no C compiler, or not one that understands the source."""


@functools.cache
def build(source: str) -> Path:
    """Compile a source of this folder to a library that lives as long as this process.

    Raises:
        NativeError: with the compiler's message.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("gcc") or "cc"]
    folder = tempfile.TemporaryDirectory(prefix="cdkd-bench-")
    atexit.register(folder.cleanup)
    target = Path(folder.name) / source.replace(".c", ".so")
    command = [*compiler, *_FLAGS, str(Path(__file__).with_name(source)), "-o", str(target)]
    try:
        wide = [*command, "-mprefer-vector-width=512"]  # known to x86 compilers alone
        if subprocess.run(wide, capture_output=True).returncode != 0:
            subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise NativeError(error.stderr.strip()) from error
    except OSError as error:
        raise NativeError(f"{command[0]}: {error.strerror}") from error
    return target
