"""Stage 1: the GPU, the versions, and what is missing with the way to bring it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys

from bench.gpu.report import Findings, stage_options

# of pip's names, with the oldest that works; without the second group a stage or a test is left out
NEEDED = {
    "torch": "2.10",
    "numpy": "",
    "cmake": "3.24",
    "ninja": "",
    "pybind11": "2.13",
    "scikit-build-core": "0.11",
}
USEFUL = {
    "pytest": "`pytest -m gpu`",
    "hypothesis": "`pytest -m gpu`",
    "opencv-python-headless": "`pytest -m gpu` and the training step",
    "safetensors": "the training step",
    "accelerate": "`pytest -m gpu` and the training step",
    "triton": "torch.compile and the Triton kernel of cca_kl",
}
TOOLS = {"nvcc": "CUDA toolkit, of the driver's version or older", "g++": "a C++17 compiler"}


def main() -> None:
    """Look, and fail where the build could not work."""
    options, findings = stage_options("environment")
    missing = [name for name, oldest in NEEDED.items() if not new_enough(version(name), oldest)]
    tools = {**TOOLS, "compute-sanitizer": "part of the CUDA toolkit; without it that stage is skipped"}
    absent = [tool for tool in TOOLS if not where(tool)]
    table = findings.table("Versions", ["", "found", "for"])
    table["rows"] += [["python", platform.python_version(), ""]]
    table["rows"] += [
        [name, version(name) or "missing", f"the build, {oldest or 'any version'}"]
        for name, oldest in NEEDED.items()
    ]
    table["rows"] += [[name, version(name) or "missing", use] for name, use in USEFUL.items()]
    table["rows"] += [[tool, where(tool) or "missing", what] for tool, what in tools.items()]
    useful = [name for name in USEFUL if not version(name)]
    if missing or useful:
        findings.notes.append(how_to_bring(missing + useful))
    gpu = describe_gpu(findings, dry_run=options.dry_run)
    if options.dry_run:
        findings.write(f"{gpu}; missing for a run on a GPU: {', '.join(missing + absent) or 'nothing else'}")
        return
    lacks = missing + absent
    findings.write(f"{gpu}; missing: {', '.join(lacks)}" if lacks else gpu)
    sys.exit(bool(lacks))


def version(name: str) -> str | None:
    """The installed version of a package, None without one."""
    names = (name, "opencv-python", "opencv-contrib-python") if name.startswith("opencv") else (name,)
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    # cmake and ninja need not come from pip
    if name in ("cmake", "ninja") and (program := shutil.which(name)):
        words = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout.split()
        return next((word for word in words if word[0].isdigit()), None)
    return None


def new_enough(found: str | None, oldest: str) -> bool:
    """Whether a version is there and not older."""
    if found is None:
        return False
    return not oldest or _numbers(found) >= _numbers(oldest)


def _numbers(text: str) -> tuple[int, ...]:
    """(2, 11) of "2.11.0+cu130"."""
    parts = text.split("+")[0].split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def where(tool: str) -> str | None:
    """Path of a program, also where the CUDA toolkit usually lies."""
    return shutil.which(tool) or shutil.which(tool, path="/usr/local/cuda/bin:/opt/cuda/bin")


def how_to_bring(names: list[str]) -> str:
    """How a machine without a network gets packages."""
    tag = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"Missing: {', '.join(names)}. Without a network, bring them as wheels. On a machine with one: `pip download "
        f"--no-deps --only-binary=:all: --python-version {tag} --platform manylinux_2_28_{platform.machine()} "
        f"--platform manylinux2014_{platform.machine()} -d wheels {' '.join(names)}` (and what they need: `--no-deps` "
        "fetches nothing else). Here: `pip install --no-index --no-deps --find-links wheels NAME …`."
    )


def describe_gpu(findings: Findings, *, dry_run: bool) -> str:
    """The card in one line, and a table of it."""
    if dry_run:
        return f"no GPU used, torch {version('torch') or 'missing'}"
    import torch

    properties = torch.cuda.get_device_properties(0)
    smi = shutil.which("nvidia-smi")
    query = ["--query-gpu=driver_version,clocks.sm,clocks.max.sm,power.limit", "--format=csv,noheader"]
    state = (
        subprocess.run([smi, *query], capture_output=True, text=True, check=False).stdout.strip()
        if smi
        else ""
    )
    capability = f"{properties.major}.{properties.minor}"
    table = findings.table("GPU", ["", ""])
    table["rows"] += [
        ["name", properties.name],
        ["compute capability", capability],
        ["memory", f"{properties.total_memory / 2**30:.1f} GiB"],
        ["multiprocessors", str(properties.multi_processor_count)],
        ["second-level cache", f"{getattr(properties, 'L2_cache_size', 0) / 2**20:.0f} MiB"],
        ["torch's CUDA", str(torch.version.cuda)],
        ["driver, clock, highest clock, power limit", state or "not known"],
        ["TF32 in matrix products, in convolutions", f"{_tf32('matmul')}, {_tf32('cudnn')}"],
    ]
    return f"{properties.name} (compute capability {capability}), torch {torch.__version__}"


def _tf32(which: str) -> str:
    import torch

    return str(
        torch.backends.cuda.matmul.allow_tf32 if which == "matmul" else torch.backends.cudnn.allow_tf32
    )


if __name__ == "__main__":
    main()
