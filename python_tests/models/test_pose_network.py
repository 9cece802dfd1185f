"""The head, the check on the images, and their normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.models import create_model, normalize_images


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("hrnet_w8_small", input_size=(32, 64), num_joints=3, split_ratio=2.0).eval()


def test_logits_are_linear_in_the_feature_of_their_joint(model: torch.nn.Module) -> None:
    output = model(torch.randn(2, 3, 32, 64))
    weights = model.state_dict()
    cells = output.feature.reshape(2, 3, 8 * 16)
    for axis, logits in (("x", output.logits_x), ("y", output.logits_y)):
        weight, bias = weights[f"mlp_head_{axis}.weight"], weights[f"mlp_head_{axis}.bias"]
        torch.testing.assert_close(logits, torch.einsum("bjs,ns->bjn", cells, weight) + bias)


@pytest.mark.parametrize("shape", [(1, 3, 64, 32), (3, 32, 64), (1, 1, 32, 64), (1, 3, 32, 32)])
def test_images_of_another_shape(model: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        InputError, match=r"images: expected shape \(B, 3, 32, 64\) for this hrnet_w8_small, got"
    ):
        model(torch.zeros(shape))


def test_images_of_another_type(model: torch.nn.Module) -> None:
    with pytest.raises(
        TypeError, match=r"images: expected uint8, or normalised floating point, got torch.int64"
    ):
        model(torch.zeros(1, 3, 32, 64, dtype=torch.int64))


def test_images_are_normalised_inside(model: torch.nn.Module) -> None:
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 32, 64), dtype=np.uint8))
    for layout in (torch.contiguous_format, torch.channels_last):
        given = images.contiguous(memory_format=layout)
        for inside, outside in zip(model(given), model(normalize_images(given)), strict=True):
            assert torch.equal(inside, outside)


def test_channels_last_gives_the_same(model: torch.nn.Module) -> None:
    images = torch.randn(2, 3, 32, 64)
    same = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(same.logits_x, model(images).logits_x, atol=1e-4, rtol=1e-4)


def test_weights_for_bgr_see_what_their_training_saw() -> None:
    """SimpleBaselines' release normalises OpenCV's blue-green-red images with the red-green-blue statistics."""
    rgb = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
    for color_order, expected in (("rgb", normalize_images(rgb)), ("bgr", normalize_images(rgb.flip(1)))):
        model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=3, color_order=color_order)
        seen: list[torch.Tensor] = []
        model.conv1.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        model(rgb)
        assert torch.equal(seen[0], expected)
        model(normalize_images(rgb))
        torch.testing.assert_close(seen[1], expected, rtol=1e-5, atol=1e-5)


def test_normalisation_against_torchvisions_constants() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8))
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    std = np.array([0.229, 0.224, 0.225])[:, None, None]
    expected = (images.numpy() / 255 - mean) / std
    actual = normalize_images(images)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)


def test_normalisation_keeps_the_memory_format() -> None:
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert normalize_images(images).is_contiguous(memory_format=torch.channels_last)


def test_normalisation_refuses_other_input() -> None:
    with pytest.raises(TypeError, match=r"images: expected torch.uint8, got torch.float32"):
        normalize_images(torch.zeros(1, 3, 4, 4))
    with pytest.raises(InputError, match=r"images: expected shape \(B, 3, H, W\), got shape \(3, 4, 4\)"):
        normalize_images(torch.zeros(3, 4, 4, dtype=torch.uint8))
