from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.harness.agreement import DisagreementError, difference


def test_largest_relative_difference_of_nested_results():
    reference = (torch.tensor([3.0, 4.0]), [torch.ones(2, dtype=torch.bfloat16), None])
    result = (np.array([3.0, 4.5]), (torch.ones(2, requires_grad=True),))
    assert difference(result, reference) == pytest.approx(0.1)
    assert difference(reference, reference) == 0
    assert difference(torch.zeros(0), torch.zeros(0)) == 0


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.ones(2, 1), r"shapes \[\(2, 1\)\], expected \[\(2,\)\]"),
        ((torch.ones(2), torch.ones(2)), "shapes"),
        (torch.tensor([1.0, torch.nan]), "NaN"),
    ],
)
def test_what_cannot_be_compared_disagrees(result, message):
    with pytest.raises(DisagreementError, match=message):
        difference(result, torch.ones(2))
