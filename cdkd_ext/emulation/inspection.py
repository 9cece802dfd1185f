"""Reads the machine code of the CUDA kernels: registers, memory, occupancy and the width of their loads."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cdkd_ext.errors import check, fail


@dataclass(frozen=True)
class _Architecture:
    """Limits of one multiprocessor (CUDA C++ Programming Guide, compute capabilities)."""

    threads: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int  # of shared memory, per block


_ARCHITECTURES = {
    "sm_75": _Architecture(1024, 16, 65536, 0),
    "sm_80": _Architecture(2048, 32, 167936, 1024),
    "sm_86": _Architecture(1536, 16, 102400, 1024),
    "sm_89": _Architecture(1536, 24, 102400, 1024),
    "sm_90": _Architecture(2048, 32, 233472, 1024),
    "sm_100": _Architecture(2048, 32, 233472, 1024),
    "sm_120": _Architecture(1536, 24, 102400, 1024),
}
_REGISTERS = 65536  # of a multiprocessor, handed out to warps in units of 256


@dataclass
class KernelCode:
    """One kernel as compiled for one architecture."""

    architecture: str
    name: str
    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    loads: Counter[int] = field(default_factory=Counter)  # from global memory, by bytes
    local_accesses: int = 0
    tensor_core_instructions: int = 0

    def occupancy(self, threads: int, dynamic_shared_bytes: int) -> float:
        """Fraction of a multiprocessor's threads that run at once, for blocks of `threads`."""
        limits = _ARCHITECTURES[self.architecture]
        warps = -(-threads // 32)
        registers = warps * (-(-self.registers * 32 // 256) * 256)
        shared = self.shared_bytes + dynamic_shared_bytes + limits.reserved_bytes
        blocks = min(limits.blocks, limits.threads // (warps * 32), _REGISTERS // registers)
        if shared:
            blocks = min(blocks, limits.shared_bytes // (-(-shared // 128) * 128))
        return blocks * warps * 32 / limits.threads


def inspect_library(path: Path | None = None) -> list[KernelCode]:
    """Read all kernels of the compiled operators.

    Args:
        path: the library; None for the installed one.

    Raises:
        InputError: there are no kernels, or cuobjdump and nvdisasm are missing.
    """
    if path is None:
        spec = importlib.util.find_spec("cdkd_ext._ops")
        check(spec is not None and spec.origin, "cdkd_ext", "no compiled operators", "an installed package")
        assert spec is not None and spec.origin is not None
        path = Path(spec.origin)
    tool = _cuobjdump()
    usage = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True)
    kernels = _parse_usage(usage.stdout)
    check(kernels, "path", str(path), "a library with CUDA kernels: build with nvcc and CDKD_CUDA=ON")
    with subprocess.Popen(
        [tool, "-sass", path], stdout=subprocess.PIPE, text=True, env=_environment(tool)
    ) as code:
        assert code.stdout is not None
        _count_instructions(code.stdout, {(kernel.architecture, kernel.name): kernel for kernel in kernels})
    return kernels


def _cuobjdump() -> str:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for tool in Path(folder).glob("cu*/bin/cuobjdump"):
            return str(tool)
    found = shutil.which("cuobjdump")
    if found is None:
        fail(
            "cuobjdump",
            "none",
            "`pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`, or the CUDA toolkit's",
        )
    return found


def _environment(tool: str) -> dict[str, str]:
    import os

    return {**os.environ, "PATH": f"{Path(tool).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def _parse_usage(text: str) -> list[KernelCode]:
    kernels: list[KernelCode] = []
    architecture = name = ""
    for line in text.splitlines():
        if line.startswith("arch = "):
            architecture = line.removeprefix("arch = ").strip()
        elif line.strip().startswith("Function "):
            name = line.strip().removeprefix("Function ").rstrip(":")
        elif usage := _USAGE.search(line):
            registers, stack, shared, local = map(int, usage.groups())
            if int(architecture.removeprefix("sm_")) >= 90:
                shared -= _ARCHITECTURES[architecture].reserved_bytes  # which is counted there
            kernels.append(KernelCode(architecture, name, registers, stack, local, shared))
    return kernels


_INSTRUCTION = re.compile(r"\b(LDG|LDGSTS|LDL|STL|[HI]MMA|HGMMA)\b([.\w]*)")
_WIDTHS = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


def _count_instructions(lines: object, kernels: dict[tuple[str, str], KernelCode]) -> None:
    architecture, kernel = "", None
    for line in lines:  # type: ignore[attr-defined]
        if "arch = " in line:
            architecture = line.split("arch = ")[1].strip()
        elif "Function :" in line:
            kernel = kernels.get((architecture, line.split("Function :")[1].strip()))
        elif kernel is not None and (found := _INSTRUCTION.search(line)):
            operation, modifiers = found.groups()
            if operation in ("LDG", "LDGSTS"):
                width = next((_WIDTHS[m] for m in modifiers.split(".") if m in _WIDTHS), 4)
                kernel.loads[width] += 1
            elif operation in ("LDL", "STL"):
                kernel.local_accesses += 1
            else:
                kernel.tensor_core_instructions += 1


_TYPE = r"NS\w?_\d+(B?Float16)E"


def readable_name(name: str) -> str:
    """Name of a kernel with its template arguments, from the mangled one."""
    found = re.search(rf"\d+([a-z_]+_kernel)(?:I((?:{_TYPE.replace('(', '(?:')}|[fd]|L[bi]\d+E)*)E)?", name)
    if not found:
        return name
    words = {"f": "float", "d": "double"}
    tokens = re.findall(rf"{_TYPE}|([fd])|L[bi](\d+)E", found.group(2) or "")
    arguments = [kind or words.get(letter) or value for kind, letter, value in tokens]
    return found.group(1).removesuffix("_kernel") + (f"<{', '.join(arguments)}>" if arguments else "")


def kernel_table(kernels: list[KernelCode]) -> str:
    """Lay the kernels out as text; occupancy is for blocks of 128 threads without dynamic shared memory."""
    lines = [
        f"{'kernel':<36} {'arch':<7} {'regs':>4} {'stack':>5} {'local':>5} {'shared':>6} {'occupancy':>9}"
        f" {'16 B':>5} {'8 B':>4} {'4 B':>4} {'2 B':>4} {'tensor':>6}"
    ]
    for k in sorted(kernels, key=lambda k: (readable_name(k.name), int(k.architecture.removeprefix("sm_")))):
        lines.append(
            f"{readable_name(k.name):<36} {k.architecture:<7} {k.registers:>4} {k.stack_bytes:>5} {k.local_bytes:>5}"
            f" {k.shared_bytes:>6} {k.occupancy(128, 0):>9.0%} {k.loads[16]:>5} {k.loads[8]:>4} {k.loads[4]:>4}"
            f" {k.loads[2]:>4} {k.tensor_core_instructions:>6}"
        )
    return "\n".join(lines)
