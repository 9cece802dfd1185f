"""Find torch's headers and libraries without importing it; prints INCLUDE;LIB;VERSION for CMake.

Under pip's build isolation the target environment's packages are hidden from imports, but the interpreter is the
target's own, so its site-packages can still be looked up.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST = (2, 10)


@dataclass(frozen=True)
class Torch:
    """An installed torch that has the stable C++ headers."""

    folder: Path
    version: str

    @property
    def include(self) -> Path:
        """The folder of the C++ headers."""
        return self.folder / "include"

    @property
    def lib(self) -> Path:
        """The folder of the shared libraries."""
        return self.folder / "lib"


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("CDKD_TORCH_DIR"):
        yield Path(chosen)
        return
    spec = importlib.util.find_spec("torch")
    if spec and spec.submodule_search_locations:
        yield from map(Path, spec.submodule_search_locations)
    for key in ("platlib", "purelib"):
        yield Path(sysconfig.get_path(key)) / "torch"
    if environment := os.environ.get("VIRTUAL_ENV"):
        python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        yield Path(environment) / "lib" / python / "site-packages" / "torch"


def find() -> Torch | None:
    """Return the first torch that is new enough and has the stable headers, or None."""
    for folder in _candidates():
        if not (folder / "include/torch/csrc/stable/library.h").exists():
            continue
        match = re.search(
            r"^__version__\s*(?::[^=]*)?=\s*'([^']+)'", (folder / "version.py").read_text(), re.M
        )
        version = match.group(1) if match else "0.0"
        if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= OLDEST:
            return Torch(folder, version)
    return None


if __name__ == "__main__":
    torch = find()
    if torch is None:
        sys.exit(
            "cdkd-ext needs torch >= 2.10 (with its C++ headers) to build and to run, and found none in this environment.\n"
            "Install it first (`pip install torch`), or point CDKD_TORCH_DIR at the folder of the torch package."
        )
    print(f"{torch.include};{torch.lib};{torch.version}", end="")
