"""What is installed: the build, the devices, the registered operators."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from cdkd_ext import __version__, ops
from cdkd_ext._C import build_info, cpu_features, instruction_set


def describe_installation() -> dict[str, Any]:
    """Return versions, processor features, GPUs, and the dispatch keys under which each operator has a kernel."""
    build = build_info()
    features = [name for name, present in cpu_features().items() if present]
    devices = {
        f"cuda:{index}": torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    }
    return {
        "cdkd-ext": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "built": {
            "torch": build["torch"],
            "compiler": build["compiler"],
            "cuda": build["cuda"] or "not built",
        },
        "processor": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "features": ", ".join(features) or "none known",
            "kernels": instruction_set(),
        },
        "gpus": devices or "none",
        "operators": {name: ", ".join(_kernels(name)) or "not registered" for name in ops.__all__},
    }


def _kernels(name: str) -> list[str]:
    if not hasattr(torch.ops.cdkd, name):
        return []
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    # without nvcc the CUDA key holds what says so
    keys = ("CPU", "CUDA", "Autograd", "Meta") if build_info()["cuda"] else ("CPU", "Autograd", "Meta")
    return [key for key in keys if has_kernel(f"cdkd::{name}", key)]
