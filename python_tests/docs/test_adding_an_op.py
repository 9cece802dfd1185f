"""The page on adding an operator, followed to the letter in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

BLOCK = re.compile(
    r'^```\w+ title="([^",]+)(?:, (before|after|instead of) ([^"]+))?"\n(.*?)^```$', re.M | re.S
)
COPIED = ("csrc", "cmake", "cdkd_ext", "python_tests", "CMakeLists.txt", "pyproject.toml", ".clang-format")
OP = "soft_argmax"


def apply(text, how, anchor, block):
    """Put a block into a file at the only line that starts with the anchor."""
    lines = text.splitlines(keepends=True)
    (at,) = (number for number, line in enumerate(lines) if line.startswith(anchor))
    end = at + (how != "before")
    apart = "\n\n" if block.startswith(("def ", "class ")) else ""  # as the formatter wants it
    lines[at + (how == "after") : end] = [block + apart]
    return "".join(lines)


@pytest.fixture(scope="module")
def copy(checkout, tmp_path_factory):
    """The checkout with the page's blocks in it; other operators' kernels are left out, for the build's time."""
    folder = tmp_path_factory.mktemp("sixth")
    for name in COPIED:
        source = checkout / name
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        (
            shutil.copytree(source, folder / name, ignore=ignored)
            if source.is_dir()
            else shutil.copy(source, folder)
        )
    for kernel in (folder / "csrc" / "ops").glob("*/*.c*"):
        if kernel.parent.name != "scale_rows":
            kernel.unlink()
    blocks = BLOCK.findall((checkout / "docs" / "adding-an-op.md").read_text())
    assert len(blocks) > 10
    for name, how, anchor, block in blocks:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        assert file.exists() == bool(how), name
        file.write_text(apply(file.read_text(), how, anchor, block) if how else block)
    return folder


def run(command, folder, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), **variables}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(copy, cmake):
    """The copy with its compiled operators, which Python finds before the installed ones."""
    build = copy / "build"
    options = [f"-DPython_EXECUTABLE={sys.executable}", "-DCDKD_CUDA=OFF", "-DCMAKE_BUILD_TYPE=Release"]
    run([*cmake, "-S", copy, "-B", build, "-DSKBUILD_PROJECT_VERSION=0", *options], copy)
    run([*cmake, "--build", build, "--target", "_ops", "--parallel", "2"], copy)
    shutil.copy(build / "_ops.so", copy / "cdkd_ext")
    return copy


@pytest.fixture(scope="module")
def cmake():
    """Commands of CMake with what it needs to configure, or a skip that says what is missing."""
    pybind11 = pytest.importorskip("pybind11", reason="needs pybind11, of the extra dev")
    found = program("cmake")
    if not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("needs a C++ compiler")
    os.environ.setdefault("pybind11_DIR", pybind11.get_cmake_dir())
    return [found]


@pytest.mark.long
def test_the_operator_signs_the_contract(built):
    files = [f"python_tests/ops/test_{name}.py" for name in ("every_op", "differentiation")]
    text = run([sys.executable, "-m", "pytest", *files, "-q", "-k", OP], built)
    passed = re.search(r"(\d+) passed", text)
    assert passed and int(passed[1]) >= 50, text


@pytest.mark.long
def test_its_cuda_kernel_runs_on_the_cpu(copy):
    if not shutil.which("g++"):
        pytest.skip("needs g++ to compile the kernels for the CPU")
    text = run([sys.executable, "-m", "pytest", f"python_tests/emulation/test_{OP}.py", "-q"], copy)
    passed = re.search(r"(\d+) passed", text)
    assert passed and int(passed[1]) >= 20, text


def program(name):
    """A program's path, on the path or beside the interpreter."""
    found = shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))
    return found or pytest.skip(f"needs {name}, of the extra dev")


def test_its_files_are_clean(copy):
    ruff, clang_format = program("ruff"), program("clang-format")
    names = [name for name in ("cdkd_ext", "python_tests") for name in (copy / name).rglob(f"*{OP}*.py")]
    assert len(names) == 3
    changed = ["cdkd_ext/ops/__init__.py", "cdkd_ext/ops/reference.py", "python_tests/ops/conftest.py"]
    for check in (["format", "--check"], ["check"]):
        run([ruff, *check, *names, *changed], copy)
    sources = [*(copy / "csrc" / "ops" / OP).iterdir(), copy / "csrc" / "schemas.cpp"]
    run([clang_format, "--dry-run", "--Werror", *sources], copy)
