"""Files of the methods' own code: tensors under published names, filled by their names, are read and written."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdkd_ext.checkpoints import export_checkpoint, load_checkpoint, load_model, save_model
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.methods.pct import PCT, PCTLayout
from cdkd_ext.models import PoseNetwork, create_model

SMALL = PCTLayout(
    tokens=4, codes=8, code_width=8, conv_width=8, conv_blocks=1, classifier_width=8, classifier_blocks=1,
    encoder_width=8, encoder_blocks=1, decoder_width=8, mixer_width=8,
)  # fmt: skip


def seeded(name: str, like: Tensor) -> Tensor:
    """Numbers that depend on the tensor's name alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if not like.is_floating_point():
        return like.clone()
    # variances are positive, and nothing grows without bounds
    return torch.rand(like.shape, generator=generator) * 0.1 + (0.5 if name.endswith("var") else -0.05)


def network_of(name: str, head: str) -> PoseNetwork:
    return create_model(name, input_size=(64, 64), num_joints=16, head=head, joints=MPII_JOINTS).eval()


def published(name: str, network: PoseNetwork) -> str:
    """The name in the published files, by the rules of each code base."""
    part = name.split(".")[0]
    if network.head.startswith("tokenpose"):
        return name if part == "transformer" else f"pre_feature.{name}"
    if network.head == "pct":
        return f"backbone.{name}" if part in ("patch_embed", "layers", "norm3") else f"keypoint_head.{name}"
    return name


CASES = [
    ("hrnet_w8_small", "tokenpose_b"),
    ("hrnet_w8_small", "tokenpose_l"),
    ("hourglass_4_w32", "heatmap"),
    ("okdhp_4_w32", "heatmap"),
    ("swin_v2_w16", "pct"),
]


@pytest.mark.parametrize(("name", "head"), CASES)
def test_published_names_are_read_and_written(
    name: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PCT, "layout", SMALL)
    network = network_of(name, head)
    weights = {}
    for own, value in network.state_dict().items():
        weights[published(own, network)] = seeded(own, value)
    assert len(weights) == len(network.state_dict())
    file = tmp_path / "published.pth"
    wrapped = {f"module.{key}": value for key, value in weights.items()} if head != "pct" else weights
    torch.save({"state_dict": wrapped}, file)
    report = load_checkpoint(network, file)
    assert report.missing == () and report.dropped == ()
    for own, value in network.state_dict().items():
        assert torch.equal(value, seeded(own, value)), own
    written = tmp_path / "written.pth"
    export_checkpoint(network, written)
    read = torch.load(written, weights_only=True)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[key], weights[key]) for key in weights)
    save_model(network, tmp_path / "own.safetensors")
    again = load_model(tmp_path / "own.safetensors").eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        for first, second in zip(network(images), again(images), strict=True):
            assert torch.equal(first, second)


def test_the_second_backbone_of_pcts_files_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PCT, "layout", SMALL)
    network = network_of("swin_v2_w16", "pct")
    weights = {published(own, network): seeded(own, value) for own, value in network.state_dict().items()}
    extra = {f"extra_{key}": value for key, value in weights.items() if key.startswith("backbone.")}
    file = tmp_path / "published.pth"
    torch.save({"state_dict": weights | extra}, file)
    report = load_checkpoint(network, file)
    assert report.layout == "pct" and set(report.dropped) == extra.keys()
    torch.save({"state_dict": weights | {"third.weight": torch.ones(1)}}, file)
    with pytest.raises(InputError, match=r"1 unexpected \(third.weight\)"):
        load_checkpoint(network, file)


def test_a_backbone_is_taken_from_another_methods_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PCT's backbone comes from a network of heatmaps, TokenPose's from one of SimCC."""
    monkeypatch.setattr(PCT, "layout", SMALL)
    for name, head, other in (
        ("swin_v2_w16", "pct", "heatmap"),
        ("hrnet_w8_small", "tokenpose_b", "simcc"),
    ):
        source, network = network_of(name, other), network_of(name, head)
        file = tmp_path / f"{other}.safetensors"
        save_model(source, file)
        report = load_checkpoint(network, file, backbone_only=True)
        kept = {key.split(".")[0] for key in report.missing}
        assert kept == set(network.head_parts)
        state, given = network.state_dict(), source.state_dict()
        assert all(torch.equal(state[key], given[key]) for key in report.matched)
