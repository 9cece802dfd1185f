"""Loading processes that find no shared memory, in a mount of its own that holds next to none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
_FULL = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && "$@"'


def full_shared_memory(*command: str) -> subprocess.CompletedProcess[str]:
    folder = Path(__file__).parent  # where no source folder hides the installed package
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*_UNSHARE, _FULL, "sh", *command], capture_output=True, text=True, cwd=folder, env=environment
    )


def test_no_shared_memory_is_one_line(drawn_people: Path, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or full_shared_memory("true").returncode:
        pytest.skip("needs the right to mount a file system of its own")
    output = tmp_path / "run"
    options = ["--model.name=hrnet_w8_small", "--data.workers=1", "--batch_size=48", "--cpu=true"]
    paths = [f"--data.root={drawn_people}", f"--output={output}"]
    done = full_shared_memory(sys.executable, "-m", "cdkd_ext.cli", "train", *options, *paths)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("cdkd: data.workers: expected fewer loading processes, or more memory for them")
    assert line.endswith(f"no checkpoint yet; `cdkd train --resume {output}` begins again")
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []
