"""What a build with or without CUDA kernels gives a user who has no GPU at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cdkd_ext import ops
from cdkd_ext._C import build_info
from cdkd_ext.emulation.inspection import inspect_library, readable_name

COMMAND = str(Path(sys.executable).with_name("cdkd"))
OPS = ["cca_kl", "simcc_kl", "simcc_decode", "projector_cosine", "sau_select"]
HELPERS = [f"{name}_{part}" for name in ("cca_kl", "simcc_kl") for part in ("gradients", "backward")]
HELPERS += [
    f"{name}_{part}" for name in ("projector_cosine", "sau_select") for part in ("forward", "backward")
]
# planes with padding, single numbers and sums of parts have no whole vectors
NARROW = {
    *("sum_partials", "projector_cosine_cosine", "projector_cosine_sum", "sau_select_convolve"),
    *(
        "sau_select_evaluate",
        "sau_select_statistics",
        "sau_select_pooled",
        "sau_select_parameters",
        "sau_select_sum",
    ),
}
needs_kernels = pytest.mark.skipif(
    build_info()["cuda"] is None, reason="this build has no CUDA kernels: no nvcc"
)
without_kernels = pytest.mark.skipif(build_info()["cuda"] is not None, reason="this build has CUDA kernels")

PRODUCTS = {f"projector_cosine_{kernel}" for kernel in ("project", "feature", "weight")}


def call_cuda_kernel(*args, **options):
    """Run cca_kl's kernel for CUDA, whatever its tensors are."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    return torch.ops.cdkd.cca_kl.default.redispatch(keys, *args, **options)


@needs_kernels
@pytest.mark.parametrize("name", [*OPS, *HELPERS])
def test_the_dispatcher_lists_a_cuda_kernel(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"cdkd::{name}", "CUDA")


@needs_kernels
def test_the_kernel_for_cuda_refuses_other_tensors() -> None:
    with pytest.raises(RuntimeError, match="student_logits: expected a tensor on cuda, got one on cpu"):
        call_cuda_kernel(torch.zeros(1, 2), torch.zeros(1, 4), torch.tensor(1.0))


@without_kernels
def test_a_build_without_kernels_says_how_to_get_them() -> None:
    with pytest.raises(RuntimeError, match=r"no CUDA kernels.*nvcc.*CDKD_CUDA=ON"):
        call_cuda_kernel(torch.zeros(1, 2), torch.zeros(1, 4), torch.tensor(1.0))


def test_info_says_whether_there_are_kernels() -> None:
    done = subprocess.run([COMMAND, "info", "--json"], capture_output=True, text=True, check=True)
    info = json.loads(done.stdout)
    assert info["built"]["cuda"] == (build_info()["cuda"] or "not built")
    assert ("CUDA" in info["operators"]["cca_kl"]) == (build_info()["cuda"] is not None)


def test_checks_do_not_look_at_what_cuda_tensors_hold() -> None:
    """A fake tensor has no elements: looking at them, which would synchronise, raises."""
    with FakeTensorMode():
        logits = torch.empty(2, 3, 8, device="cuda")
        flipped = (logits, logits, torch.empty(3, dtype=torch.int64, device="cuda"))
        assert ops.cca_kl(logits, logits, torch.empty((), device="cuda")).device.type == "cuda"
        assert ops.cca_kl(logits, logits, 1.5).shape == (2, 3)
        assert ops.simcc_kl(logits, torch.empty(2, 3, device="cuda")).shape == (2, 3)
        assert ops.simcc_decode(logits, logits, 2.0, flipped=flipped)[0].shape == (2, 3, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="the emulation needs Linux")
def test_the_launch_plan_is_printed() -> None:
    done = subprocess.run(
        [COMMAND, "info", "--launch-plan", "--sizes.batch=2", "--sizes.dtype=float16"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "cca_kl backward" in done.stdout and "scale_rows" in done.stdout


def test_sizes_that_make_no_sense_are_refused() -> None:
    done = subprocess.run(
        [COMMAND, "info", "--launch-plan", "--sizes.batch=0"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "batch" in done.stderr


@pytest.mark.long
@needs_kernels
def test_machine_code() -> None:
    """No spills and no local memory on any architecture; rows are loaded 16 bytes at a time."""
    pytest.importorskip("nvidia", reason="needs nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm")
    kernels = inspect_library()
    assert {kernel.architecture for kernel in kernels} == {
        f"sm_{version}" for version in (75, 80, 86, 89, 90, 100, 120)
    }
    names = {readable_name(kernel.name).split("<")[0] for kernel in kernels}
    assert names >= {
        "cca_kl",
        "simcc_kl",
        "simcc_decode",
        "simcc_decode_flipped",
        "scale_rows",
        "sum_partials",
        *(f"projector_cosine_{kernel}" for kernel in ("project", "cosine", "feature", "weight", "sum")),
        *(f"sau_select_{kernel}" for kernel in ("convolve", "statistics", "select", "evaluate")),
        *(f"sau_select_{kernel}" for kernel in ("pooled", "parameters", "feature", "weight", "sum")),
    }
    for kernel in kernels:
        what = f"{readable_name(kernel.name)} for {kernel.architecture}"
        assert kernel.stack_bytes == kernel.local_bytes == kernel.local_accesses == 0, what
        assert 0 < kernel.registers <= 255 and kernel.occupancy(128, 0) > 0, what
        name, _, arguments = readable_name(kernel.name).rstrip(">").partition("<")
        if name in PRODUCTS:
            tensor = arguments.split(", ")[1] == "1"
            if arguments.startswith("BFloat16") and tensor == (kernel.architecture == "sm_75"):
                continue  # the launcher takes the other one there
            assert (kernel.tensor_core_instructions > 0) == tensor, what
        assert name in NARROW or kernel.loads[16] > 0, what
