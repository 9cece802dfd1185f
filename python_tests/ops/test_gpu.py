"""Every op on a GPU: `pytest -m gpu`. Inputs are those of conftest.py; the CPU's results are the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from cdkd_ext._C import build_info

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and a torch built for it"),
    pytest.mark.skipif(build_info()["cuda"] is None, reason="needs a build with CUDA kernels"),
]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def flat(result: Any) -> list[Tensor]:
    return list(tree_flatten(result)[0])


def on(device: str, inputs: Any) -> Any:
    def move(x: Any) -> Any:
        return x.detach().to(device).requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x

    return tree_map(move, inputs)


def run(case: Any, inputs: Any) -> list[Tensor]:
    """Results and gradients."""
    args, options = inputs
    results = flat(case.public(*args, **options))
    wanted = [x for x in tree_flatten(inputs)[0] if isinstance(x, Tensor) and x.requires_grad]
    parts = [
        (r * torch.linspace(0.5, 1.5, r.numel(), device=r.device).view_as(r)).sum()
        for r in results
        if r.requires_grad
    ]
    gradients = torch.autograd.grad(sum(parts[1:], parts[0]), wanted) if parts else ()
    return [result.detach() for result in results] + list(gradients)


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double().cpu(), b.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_agrees_with_the_cpu(case: Any, dtype: torch.dtype) -> None:
    inputs = case.inputs(dtype, 4)
    found = run(case, on("cuda", inputs))
    assert all(result.is_cuda for result in found)
    assert_near(found, run(case, inputs), TOLERANCE[dtype])


def test_the_same_bits_every_time(case: Any) -> None:
    inputs = on("cuda", case.inputs(torch.float32, 300))
    first = run(case, inputs)
    for _ in range(3):
        torch.testing.assert_close(run(case, inputs), first, rtol=0, atol=0)


def test_inputs_need_not_be_contiguous(case: Any) -> None:
    inputs = on("cuda", case.inputs(torch.float32, 3))

    def stride(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return torch.stack((x.detach(), x.detach()), -1)[..., 0].requires_grad_(x.requires_grad)

    torch.testing.assert_close(run(case, tree_map(stride, inputs)), run(case, inputs), rtol=0, atol=0)


def test_another_stream(case: Any) -> None:
    inputs = on("cuda", case.inputs(torch.float32, 64))
    expected = run(case, inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = run(case, inputs)
    stream.synchronize()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_no_synchronisation(case: Any) -> None:
    inputs = on("cuda", case.inputs(torch.float32, 4))
    run(case, inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(case, inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_graph_capture(case: Any) -> None:
    inputs = on("cuda", case.inputs(torch.float32, 8))
    args, options = inputs
    with torch.no_grad():  # as what is captured: another kernel may round otherwise
        expected = flat(case.public(*args, **options))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        case.public(*args, **options)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        results = flat(case.public(*args, **options))
    for result in results:
        result.zero_()
    graph.replay()
    if case.op != "sau_select":  # whose running statistics move with each call
        torch.testing.assert_close(results, [result.detach() for result in expected], rtol=0, atol=0)
    assert all(result.isfinite().all() for result in results)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_last_device(case: Any) -> None:
    device = f"cuda:{torch.cuda.device_count() - 1}"
    inputs = case.inputs(torch.float32, 4)
    found = run(case, on(device, inputs))
    assert torch.cuda.current_device() == 0
    assert all(str(result.device) == device for result in found)
    assert_near(found, run(case, inputs), TOLERANCE[torch.float32])


def test_mixed_precision(case: Any) -> None:
    inputs = on("cuda", case.inputs(torch.bfloat16, 4))
    with torch.autocast("cuda", torch.bfloat16):
        found = run(case, inputs)
    torch.testing.assert_close(found, run(case, inputs), rtol=0, atol=0)


def test_empty_batches_give_empty_results(case: Any) -> None:
    args, options = on("cuda", case.inputs(torch.float32, 0))
    assert all(result.numel() == 0 for result in flat(case.public(*args, **options)))


def test_devices_must_agree(case: Any) -> None:
    args, options = case.inputs(torch.float32, 2)
    with pytest.raises((ValueError, RuntimeError), match=r"device|cuda"):
        case.public(args[0].cuda(), *args[1:], **options)
