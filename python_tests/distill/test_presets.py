"""Complete losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cdkd_ext.distill import ETHT, SimCCLoss, paper_loss, recommended_loss


def test_recommended_loss() -> None:
    loss = recommended_loss(SimCCLoss(2.0), 2, (2, 3), (4, 6))
    assert loss.sape is not None
    assert loss.cca is not None
    assert (loss.alpha, loss.beta, loss.tau) == (2.0, 4.0, 1.0)
    assert (loss.sape.activation, loss.sape.center_teacher) == ("none", True)
    assert loss.adversarial_parameters() == []


def test_paper_loss(make_outputs: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    loss = paper_loss(SimCCLoss(2.0), 2, (2, 3), (4, 6)).double()
    assert loss.sape is not None
    assert loss.cca is not None
    assert isinstance(loss.tau, ETHT)
    assert (loss.alpha, loss.beta, loss.tau.low, loss.tau.high) == (1.0, 1.0, 1.0, 21.0)
    assert (loss.sape.activation, loss.sape.center_teacher, loss.cca.phase) == ("relu", False, "paper")
    assert [weight.shape[-1] for weight in loss.sape.sau.conv_weights] == [3, 5, 7, 7]
    student, teacher = make_outputs(), make_outputs(size=(4, 6), bins=(24, 16))
    ones = torch.ones(3, dtype=torch.float64)
    terms = loss(student, teacher, torch.rand(3, 2, 2), ones[:, None].expand(3, 2), ones, 1.0)
    assert terms["tau"].item() == pytest.approx(15.62, abs=0.01)
    assert terms["xi"].item() == 1
