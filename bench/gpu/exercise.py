"""Every op once, forward and backward, in two types and at sizes that fill no tile: what the sanitizers watch."""

from __future__ import annotations

import torch

from bench.gpu.cases import OPS, Inputs, inputs, run

SIZES = {
    "batch": 3,
    "joints": 5,
    "classes": 33,
    "bins": 99,
    "side": 6,
    "teacher side": 10,
    "projectors": 2,
}


def main() -> None:
    """Run, and fail where a result is not finite."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for op in OPS:
        for dtype in (torch.float32, torch.bfloat16):
            drawn = inputs(op, SIZES, dtype, torch.device("cpu"), seed=0)
            # drawn on the CPU: fewer of torch's kernels for initcheck to watch
            moved = {id(tensor): tensor.detach().to(device) for tensor in drawn.all}
            learn = tuple(moved[id(tensor)].requires_grad_() for tensor in drawn.learn)
            results = run(op.ours, Inputs(tuple(moved.values()), learn))
            for result in results:
                assert torch.isfinite(result.cpu()).all(), f"{op.name} in {dtype}"
            print(op.name, dtype, flush=True)


if __name__ == "__main__":
    main()
