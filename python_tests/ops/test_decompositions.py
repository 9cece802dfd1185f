"""What exporters get in place of the operators."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext import ops
from cdkd_ext.ops.decompositions import decompositions


class Decoding(torch.nn.Module):
    def __init__(self, score: str, flips: bool) -> None:
        super().__init__()
        self.score, self.flips = score, flips
        self.register_buffer("permutation", torch.tensor([1, 0, 2]))

    def forward(self, x, y, to_image):
        flipped = (x.roll(1, 0), y.roll(1, 0), self.permutation) if self.flips else None
        return ops.simcc_decode(x, y, 2.0, flipped=flipped, to_image=to_image, score=self.score)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("score", ["min", "max", "mean"])
def test_a_lowered_program_decodes_as_the_operator(score: str, flips: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(shape, generator=generator) for shape in ((5, 3, 64), (5, 3, 48), (5, 2, 3))]
    module = Decoding(score, flips)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, tuple(values), dynamic_shapes=[{0: batch}] * 3)
    assert any("simcc_decode" in str(node.target) for node in program.graph.nodes)
    lowered = program.run_decompositions(decompositions())
    assert not any("cdkd" in str(node.target) for node in lowered.graph.nodes)
    for count in (5, 2):
        given = [value[:count] for value in values]
        for found, expected in zip(lowered.module()(*given), module(*given), strict=True):
            torch.testing.assert_close(found, expected)
