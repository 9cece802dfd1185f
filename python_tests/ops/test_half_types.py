"""bfloat16 and float16 are read and written bit for bit as torch does, for every value there is."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1 / 3, 1000.0, 1e-3, -7.7e-7])
def test_every_value_times_a_scale(dtype: torch.dtype, scale: float) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(256, 256)
    factors = torch.full((256,), scale)
    scaled = torch.ops.cdkd.simcc_kl_backward(factors, every)
    expected = (every.float() * factors[:, None]).to(dtype)
    assert torch.equal(scaled.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(scaled[numbers].view(torch.int16), expected[numbers].view(torch.int16))
