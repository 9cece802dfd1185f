"""What each CUDA kernel would launch for given sizes, and the bytes it moves: counted, by running it on the CPU."""

from __future__ import annotations

import importlib
import math
import pkgutil
from types import ModuleType

import numpy as np

import cdkd_ext.emulation
from cdkd_ext.emulation.library import Emulation
from cdkd_ext.emulation.passes import LaunchSizes, Pass


def _ops() -> list[ModuleType]:
    """The modules of this package that have a `plan`, by their `POSITION` in the table and then by name."""
    package = cdkd_ext.emulation
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    ops = [module for module in modules if hasattr(module, "plan")]
    return sorted(ops, key=lambda module: getattr(module, "POSITION", math.inf))


def plan_launches(sizes: LaunchSizes, emulation: Emulation | None = None) -> list[Pass]:
    """Run every op once on random inputs of these sizes.

    Raises:
        ImportError: this build has no emulation.
    """
    emulation = emulation or Emulation()
    emulation.configure()
    passes = [done for op in _ops() for done in op.plan(emulation, sizes)]
    emulation.configure()
    return passes


def plan_table(passes: list[Pass]) -> str:
    """Lay the launches out as text."""
    lines = [
        f"{'pass and kernel':<34} {'grid':>6} {'block':>6} {'shared':>7} {'read':>12} {'written':>12} {'in 16 B':>8}"
        f" {'fewest':>12} {'ratio':>6}"
    ]
    for done in passes:
        lines.append(f"{done.name:<81}{done.fewest:>22} {done.ratio:>6.3f}")
        for launch in done.launches:
            wide = launch.read_by_width.get(16, 0) + launch.written_by_width.get(16, 0)
            lines.append(
                f"  {launch.kernel:<32} {_product(launch.grid):>6} {_product(launch.block):>6}"
                f" {launch.shared_bytes:>7} {launch.read:>12} {launch.written:>12}"
                f" {wide / (launch.read + launch.written):>8.1%}"
            )
    return "\n".join(lines)


def _product(sizes: tuple[int, ...]) -> int:
    return int(np.prod(sizes))
