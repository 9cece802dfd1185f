"""What a build tells its user."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import cdkd_ext
from cdkd_ext._C import build_info, cpu_features

CPUINFO = Path("/proc/cpuinfo")
FIND_TORCH = Path(__file__).resolve().parents[1] / "cmake" / "find_torch.py"


def find_torch(**environment):
    return subprocess.run(
        [sys.executable, FIND_TORCH], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_the_torch_of_this_environment_is_found():
    include, lib, found = find_torch().stdout.split(";")
    assert found == torch.__version__
    assert (Path(include) / "torch/csrc/stable/library.h").is_file() and Path(lib).is_dir()


def test_a_missing_torch_is_told_with_what_to_do(tmp_path):
    done = find_torch(CDKD_TORCH_DIR=str(tmp_path))
    assert done.returncode != 0
    assert "needs torch >= 2.10" in done.stderr and "pip install torch" in done.stderr


def test_a_torch_that_is_too_old_does_not_count(tmp_path):
    header = tmp_path / "include/torch/csrc/stable/library.h"
    header.parent.mkdir(parents=True)
    header.touch()
    (tmp_path / "version.py").write_text("__version__ = '2.9.1+cpu'\n")
    assert find_torch(CDKD_TORCH_DIR=str(tmp_path)).returncode != 0
    (tmp_path / "version.py").write_text("__version__ = '2.10.0'\n")
    assert find_torch(CDKD_TORCH_DIR=str(tmp_path)).stdout.endswith(";2.10.0")


def test_there_is_one_version():
    assert cdkd_ext.__version__ == version("cdkd-ext") == build_info()["version"]


@pytest.mark.skipif(not CPUINFO.exists(), reason="the system does not list the processor's features")
def test_processor_features_are_those_of_the_system():
    flags = CPUINFO.read_text().split()
    assert cpu_features() == {name: name in flags for name in cpu_features()}
