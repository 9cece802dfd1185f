"""Published sizes and costs, to the printed digit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cdkd_ext.models import count_macs, count_parameters, create_model


@pytest.mark.parametrize(
    ("name", "size", "split_ratio", "millions", "convolution_gibi"),
    [
        ("hrnet_w32", 64, 3, "28.635", "0.593"),
        ("hrnet_w32", 32, 2, "28.544", "0.148"),
        ("hrnet_w48", 64, 3, "63.694", "1.218"),
        ("hrnet_w32", 256, 3, "34.829", "9.493"),
    ],
)
def test_published_numbers(
    name: str, size: int, split_ratio: float, millions: str, convolution_gibi: str
) -> None:
    with torch.device("meta"):
        model = create_model(name, input_size=(size, size), num_joints=17, split_ratio=split_ratio)
    assert f"{count_parameters(model) / 1e6:.3f}" == millions
    assert f"{count_macs(model, linear=False) / 2**30:.3f}" == convolution_gibi
    cells = (size // 4) ** 2
    assert count_macs(model) - count_macs(model, linear=False) == 2 * 17 * cells * int(size * split_ratio)


def test_layers_by_hand() -> None:
    class Layers(nn.Module):
        input_size = (6, 8)

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
            self.transposed = nn.ConvTranspose2d(8, 2, 4, stride=2, padding=1)
            self.linear = nn.Linear(8, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(self.transposed(self.grouped(self.conv(images))))

    convolutions = 3 * 4 * 4 * 3 * 9 + 3 * 4 * 8 * 2 * 9 + 3 * 4 * 8 * 2 * 16
    model = Layers()
    assert count_macs(model, linear=False) == convolutions  # type: ignore[arg-type]
    assert count_macs(model) == convolutions + 2 * 6 * 8 * 5  # type: ignore[arg-type]


def test_counting_leaves_the_model_as_it_was() -> None:
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=4)
    model.bn1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model)
    assert model.training
    assert not model.bn1.training
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
