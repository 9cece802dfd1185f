"""Every head has a codec, and every codec keeps the contract."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args, get_type_hints

import pytest
import torch

from cdkd_ext.codecs import CODECS, HeatmapCodec, SimCCCodec, codec_for
from cdkd_ext.errors import InputError
from cdkd_ext.models import ModelOptions, ModelSpec, create_model

SPEC = ModelSpec(name="hrnet_w8_small", input_size=(64, 32), num_joints=3, split_ratio=2.0)
# methods of square crops alone
SQUARE = ("pct",)


def test_the_heads_of_a_description_are_the_codecs() -> None:
    assert set(get_args(get_type_hints(ModelOptions)["head"])) == CODECS.keys()


def test_a_codec_is_made_of_the_description() -> None:
    assert codec_for(SPEC) == SimCCCodec(2.0, "min")
    assert codec_for(SPEC, simcc_score="max") == SimCCCodec(2.0, "max")
    maps = replace(SPEC, head="heatmap", decoding="dark")
    assert codec_for(maps, simcc_score="max") == HeatmapCodec((64, 32), "dark")


def test_an_unknown_head() -> None:
    @dataclass
    class Other:
        head: str = "offsets"
        input_size: tuple[int, int] = (32, 32)
        split_ratio: float = 1.0
        decoding: str = "quarter"

    with pytest.raises(InputError, match=r"head: expected one of 'simcc', 'heatmap', .*, got 'offsets'"):
        codec_for(Other())


@pytest.mark.parametrize("head", sorted(CODECS))
def test_the_contract(head: str) -> None:
    """Shapes and types, a joint of weight 0 anywhere, the map to the image, and the flip of a symmetric output."""
    spec = replace(SPEC, head=head, input_size=(64, 64) if head in SQUARE else SPEC.input_size)
    codec = codec_for(spec)
    output = create_model(spec).eval()(torch.zeros(2, 3, *spec.input_size, dtype=torch.uint8))
    across, down = codec.places_per_pixel(output)
    # from the first cell to the last there is one step less than there are cells
    assert spec.method.unbiased_crop or across == down
    assert across > 0 and down > 0 and codec.score_threshold > 0
    keypoints = torch.tensor([[[10.0, 20.0], [5.0, 40.0], [float("nan"), 1e9]]]).expand(2, 3, 2)
    weights = torch.tensor([[1.0, 0.5, 0.0]]).expand(2, 3)
    targets, used = codec.targets(output, keypoints, weights)
    assert targets.dtype == torch.float32 and targets.isfinite().all()
    assert torch.equal(used, weights)
    points, scores = codec.decode(output)
    assert points.shape == (2, 3, 2) and scores.shape == (2, 3)
    moved = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 1.0, 4.0]]]).expand(2, 2, 3)
    torch.testing.assert_close(codec.decode(output, to_image=moved)[0], points + torch.tensor([3.0, 4.0]))
    mirrored = (output, torch.tensor([1, 0, 2]))
    assert codec.decode(output, flipped=mirrored)[0].shape == points.shape
