"""The unit that weights the projectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdkd_ext.distillation import SAU
from cdkd_ext.errors import InputError


def plain_sau(sau: SAU, feature: Tensor, norms: list[nn.BatchNorm2d]) -> Tensor:
    """Per branch convolution, BatchNorm2d, ReLU, pooling; then two fully connected layers and a softmax."""
    pooled = sum(
        norm(F.conv2d(feature, weight, padding=weight.shape[-1] // 2)).relu().mean((2, 3))
        for weight, norm in zip(sau.conv_weights, norms, strict=True)
    )
    hidden = F.linear(pooled, sau.squeeze_weight, sau.squeeze_bias).relu()
    scores = [F.linear(hidden, w, b) for w, b in zip(sau.select_weight, sau.select_bias, strict=True)]
    return torch.stack(scores, 1).softmax(1)


@pytest.mark.parametrize("kernels", [(3, 5, 7, 7), (1,), (3, 3)])
def test_against_plain_layers_in_training_and_evaluation(kernels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    sau = SAU(6, 4, kernels).double()
    norms = [nn.BatchNorm2d(6).double() for _ in kernels]
    with torch.no_grad():
        for branch, norm in enumerate(norms):
            norm.weight.copy_(sau.norm_weight[branch].uniform_(0.5, 2))
            norm.bias.copy_(sau.norm_bias[branch].normal_())
    feature = torch.randn(5, 6, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(sau(feature), plain_sau(sau, feature, norms))
    for branch, norm in enumerate(norms):
        torch.testing.assert_close(sau.running_mean[branch], norm.running_mean)
        torch.testing.assert_close(sau.running_var[branch], norm.running_var)
        norm.eval()
    sau.eval()
    before = sau.running_mean.clone()
    torch.testing.assert_close(sau(feature), plain_sau(sau, feature, norms))
    assert torch.equal(sau.running_mean, before)


def test_weights_sum_to_one_over_the_projectors() -> None:
    weights = SAU(3, 5)(torch.randn(2, 3, 4, 4))
    assert weights.shape == (2, 5, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 3))


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    sau = SAU(3, 2)
    (sau(torch.randn(4, 3, 4, 4)) * torch.randn(4, 2, 3)).sum().backward()
    assert [name for name, p in sau.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_running_statistics_are_saved_but_not_trained() -> None:
    sau = SAU(3, 2)
    assert {"running_mean", "running_var"} <= set(sau.state_dict())
    assert not {"running_mean", "running_var"} & {name for name, _ in sau.named_parameters()}


@pytest.mark.parametrize(("channels", "hidden"), [(16, 32), (512, 32), (1024, 64)])
def test_hidden_width(channels: int, hidden: int) -> None:
    with torch.device("meta"):
        assert SAU(channels, 2, (1,)).squeeze_weight.shape == (hidden, channels)


@pytest.mark.parametrize("kernels", [(), (4,), (3, 0), (3, -1), (3.0,)])
def test_kernels_must_be_odd(kernels: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="kernels: expected one or more odd positive integers"):
        SAU(3, 2, kernels)
