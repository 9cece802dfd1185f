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


def configured(folder, *definitions, **environment):
    """What CMake says when it configures a build in `folder`; nothing is compiled."""
    pybind11 = pytest.importorskip("pybind11", reason="needs the extra dev")
    inherited = {name: value for name, value in os.environ.items() if name != "CDKD_CUDA"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [
        *("cmake", "-G", "Ninja", "-S", FIND_TORCH.parents[1], "-B", folder, "-DSKBUILD_PROJECT_VERSION=0"),
        *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
        *("-DCMAKE_CUDA_COMPILER=NOTFOUND", *definitions),
    ]
    done = subprocess.run(
        command, env={**inherited, "PATH": path, **environment}, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_the_environment_says_whether_to_compile_cuda(tmp_path):
    assert "CUDA kernels: OFF" in configured(tmp_path, CDKD_CUDA="OFF")
    # another answer later, in the same folder, and over what CMake was given
    assert "CDKD_CUDA=ON, but no CUDA compiler works" in configured(tmp_path, CDKD_CUDA="ON", CUDACXX="/none")
    assert "CUDA kernels: OFF" in configured(tmp_path, "-DCDKD_CUDA=ON", CDKD_CUDA="OFF")
    assert "CUDA kernels: OFF" in configured(tmp_path, "-DCDKD_CUDA=OFF", CDKD_CUDA="")


@pytest.mark.parametrize("wrong", ["off", "no", "1"])
def test_no_other_answer_is_taken(tmp_path, wrong):
    assert f"CDKD_CUDA: expected AUTO, ON or OFF, got '{wrong}'" in configured(tmp_path, CDKD_CUDA=wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="other linkers hide libraries otherwise")
@pytest.mark.long
def test_a_library_keeps_its_own_copy_of_the_c_runtime_to_itself(tmp_path):
    # torch has another copy, and what is formatted with halves of both goes wrong or crashes
    said = configured(tmp_path, CDKD_CUDA="OFF", LDFLAGS="-static-libstdc++")
    ninja = Path(sys.executable).parent / "ninja"
    subprocess.run([ninja, "-C", tmp_path, "_C"], check=True, capture_output=True)
    (library,) = tmp_path.glob("_C*.so")
    listed = subprocess.run(
        ["nm", "--dynamic", "--defined-only", library], check=True, capture_output=True, text=True
    )
    symbols = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert "PyInit__C" in symbols, said
    # those that throw, and that write numbers to streams
    assert not symbols & {"__cxa_throw", "__cxa_allocate_exception", "_ZNSolsEi", "_ZNSo9_M_insertIlEERSoT_"}
    for target in ("_ops.so", "_cuda_emulation.so"):
        commands = subprocess.run(
            [ninja, "-C", tmp_path, "-t", "commands", "-s", target],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "-static-libstdc++ -Wl,--exclude-libs,ALL" in commands.stdout
