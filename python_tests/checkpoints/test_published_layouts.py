"""Checkpoints of other code bases, with their names written down here and not taken from the package."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cdkd_ext.checkpoints import export_checkpoint, load_checkpoint
from cdkd_ext.errors import InputError
from cdkd_ext.models import ModelSpec, PoseNetwork, create_model
from cdkd_ext.models.resnet import ResNet, ResNetLayout

Weights = dict[str, Tensor]


class Namer:
    """Collects tensors under the names of a layout, filled with numbers of their own."""

    def __init__(self) -> None:
        self.weights: Weights = {}
        self.generator = torch.Generator().manual_seed(7)

    def add(self, name: str, *shape: int) -> None:
        self.weights[name] = torch.rand(shape, generator=self.generator)

    def norm(self, name: str, channels: int) -> None:
        for vector in ("weight", "bias", "running_mean", "running_var"):
            self.add(f"{name}.{vector}", channels)
        self.weights[f"{name}.num_batches_tracked"] = torch.tensor(len(self.weights))

    def conv_norm(self, conv: str, norm: str, out: int, into: int, kernel: int) -> None:
        self.add(f"{conv}.weight", out, into, kernel, kernel)
        self.norm(norm, out)


def hrnet_backbone(start: str = "", resolutions: int = 1) -> Weights:
    """The names of hrnet_w8_small's backbone: one bottleneck, one module per stage, one block per branch."""
    w = Namer()
    w.conv_norm(f"{start}conv1", f"{start}bn1", 16, 3, 3)
    w.conv_norm(f"{start}conv2", f"{start}bn2", 16, 16, 3)
    block = f"{start}layer1.0"
    w.conv_norm(f"{block}.conv1", f"{block}.bn1", 16, 16, 1)
    w.conv_norm(f"{block}.conv2", f"{block}.bn2", 16, 16, 3)
    w.conv_norm(f"{block}.conv3", f"{block}.bn3", 64, 16, 1)
    w.conv_norm(f"{block}.downsample.0", f"{block}.downsample.1", 64, 16, 1)
    w.conv_norm(f"{start}transition1.0.0", f"{start}transition1.0.1", 8, 64, 3)
    w.conv_norm(f"{start}transition1.1.0.0", f"{start}transition1.1.0.1", 16, 64, 3)
    w.conv_norm(f"{start}transition2.2.0.0", f"{start}transition2.2.0.1", 32, 16, 3)
    w.conv_norm(f"{start}transition3.3.0.0", f"{start}transition3.3.0.1", 64, 32, 3)
    widths = (8, 16, 32, 64)
    for branches in (2, 3, 4):
        module = f"{start}stage{branches}.0"
        for b in range(branches):
            for c in "12":
                name = f"{module}.branches.{b}.0"
                w.conv_norm(f"{name}.conv{c}", f"{name}.bn{c}", widths[b], widths[b], 3)
        for i in range(resolutions if branches == 4 else branches):
            for j in range(branches):
                fuse = f"{module}.fuse_layers.{i}.{j}"
                if j > i:
                    w.conv_norm(f"{fuse}.0", f"{fuse}.1", widths[i], widths[j], 1)
                for k in range(i - j):
                    out = widths[i] if k == i - j - 1 else widths[j]
                    w.conv_norm(f"{fuse}.{k}.0", f"{fuse}.{k}.1", out, widths[j], 3)
    return w.weights


def resnet_backbone(start: str = "", blocks: Iterable[int] = (1, 2, 1, 1)) -> Weights:
    """The names of torchvision's ResNet of width 4 without its classifier."""
    w = Namer()
    w.conv_norm(f"{start}conv1", f"{start}bn1", 4, 3, 7)
    channels = 4
    for layer, count in enumerate(blocks, start=1):
        inner = 2 * 2**layer
        for i in range(count):
            name = f"{start}layer{layer}.{i}"
            w.conv_norm(f"{name}.conv1", f"{name}.bn1", inner, channels, 1)
            w.conv_norm(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
            w.conv_norm(f"{name}.conv3", f"{name}.bn3", 4 * inner, inner, 1)
            if i == 0:
                w.conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", 4 * inner, channels, 1)
            channels = 4 * inner
    return w.weights


def final_layer(start: str = "", joints: int = 4, channels: int = 8) -> Weights:
    w = Namer()
    w.add(f"{start}final_layer.weight", joints, channels, 1, 1)
    w.add(f"{start}final_layer.bias", joints)
    return w.weights


def simcc_layers(start: str = "", cells: int = 64, bins: int = 96) -> Weights:
    w = Namer()
    for axis in "xy":
        w.add(f"{start}mlp_head_{axis}.weight", bins, cells)
        w.add(f"{start}mlp_head_{axis}.bias", bins)
    return w.weights


def deconvolutions(start: str = "") -> Weights:
    w = Namer()
    for conv, norm, channels in ((0, 1, 128), (3, 4, 6), (6, 7, 6)):
        w.add(f"{start}deconv_layers.{conv}.weight", channels, 6, 4, 4)
        w.norm(f"{start}deconv_layers.{norm}", 6)
    return w.weights


def hrnet(head: str) -> PoseNetwork:
    return create_model("hrnet_w8_small", input_size=(32, 32), num_joints=4, head=head)


def resnet(head: str) -> PoseNetwork:
    spec = ModelSpec(name="tiny", input_size=(32, 32), num_joints=4, head=head)
    return ResNet(ResNetLayout((1, 2, 1, 1), 4, (6, 6, 6)), spec)


OFFICIAL = {
    "HRNet": (hrnet, "heatmap", hrnet_backbone() | final_layer()),
    "SimCC": (hrnet, "simcc", hrnet_backbone() | final_layer() | simcc_layers()),
    "SimpleBaselines": (resnet, "heatmap", resnet_backbone() | deconvolutions() | final_layer(channels=6)),
    "SimCC ResNet": (
        resnet,
        "simcc",
        resnet_backbone() | deconvolutions() | final_layer(channels=6) | simcc_layers(),
    ),
}
MMPOSE = {
    "HRNet": hrnet_backbone("backbone.") | final_layer("head."),
    "SimCC": hrnet_backbone("backbone.") | final_layer("head.") | simcc_layers("head."),
    "SimpleBaselines": resnet_backbone("backbone.")
    | deconvolutions("head.")
    | final_layer("head.", channels=6),
    "SimCC ResNet": resnet_backbone("backbone.")
    | deconvolutions("head.deconv_head.")
    | final_layer("head.deconv_head.", channels=6)
    | simcc_layers("head."),
}


def assert_equal_weights(model: PoseNetwork, expected: Weights) -> None:
    actual = model.state_dict()
    assert actual.keys() == expected.keys()
    assert [name for name in actual if not torch.equal(actual[name], expected[name])] == []


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((name, layout) for name in OFFICIAL for layout in ("official", "mmpose")),
        ("HRNet", "mmpose 0.x"),
        ("SimpleBaselines", "mmpose 0.x"),
    ],
)
def test_pose_checkpoints(tmp_path: Path, name: str, layout: str) -> None:
    make, head, weights = OFFICIAL[name]
    content: Any = weights
    if layout != "official":
        start = "keypoint_head." if layout == "mmpose 0.x" else "head."
        names = {
            start + there.removeprefix("head.") if there.startswith("head.") else there: value
            for there, value in MMPOSE[name].items()
        }
        content = {"meta": {"epoch": 210, "config": "model = dict()"}, "state_dict": names}
    torch.save(content, tmp_path / "weights.pth")
    model = make(head)
    report = load_checkpoint(model, tmp_path / "weights.pth")
    assert_equal_weights(model, weights)
    assert report.layout == layout.split()[0]
    assert set(report.matched) == set(weights) and report.missing == report.dropped == ()
    assert str(report) == f"{tmp_path}/weights.pth: {len(weights)} tensors read ({report.layout} names)"


def test_training_checkpoint_of_hrnet_simcc_and_cdkd(tmp_path: Path) -> None:
    """`perf` is a numpy number, and the optimiser is beside the weights."""
    make, head, weights = OFFICIAL["SimCC"]
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    content = {
        "epoch": 210,
        "model": "pose_hrnet",
        "state_dict": {f"module.{name}": torch.zeros_like(value) for name, value in weights.items()},
        "best_state_dict": weights,
        "perf": np.float64(0.612),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    model = make(head)
    load_checkpoint(model, tmp_path / "checkpoint.pth")
    assert_equal_weights(model, weights)


def test_training_checkpoint_of_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log is an object of mmengine with arrays and bound methods: it is read as nothing."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.arange(5.0)
            self._count_history = np.arange(5)
            self._statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self) -> float:
            return float(self._log_history.mean())

    HistoryBuffer.__module__ = "mmengine.logging.history_buffer"
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__module__ = HistoryBuffer.__module__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    modules = {}
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        modules[name] = types.ModuleType(name)
    modules["mmengine.logging.history_buffer"].HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    path = tmp_path / "epoch_210.pth"
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        content = {
            "meta": {
                "dataset_meta": {"sigmas": np.ones(4, np.float32), "skeleton": np.zeros((2, 3), np.uint8)}
            },
            "state_dict": MMPOSE["SimCC"] | {"data_preprocessor.mean": torch.zeros(3, 1, 1)},
            "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}},
        }
        torch.save(content, path)
    make, head, weights = OFFICIAL["SimCC"]
    model = make(head)
    report = load_checkpoint(model, path)
    assert_equal_weights(model, weights)
    assert report.dropped == ("data_preprocessor.mean",) and report.missing == ()


def imagenet_hrnet(start: str = "") -> Weights:
    w = Namer()
    w.conv_norm(f"{start}incre_modules.0.0.conv1", f"{start}incre_modules.0.0.bn1", 32, 8, 1)
    w.conv_norm(f"{start}downsamp_modules.0.0", f"{start}downsamp_modules.0.1", 256, 128, 3)
    w.conv_norm(f"{start}final_layer.0", f"{start}final_layer.1", 2048, 1024, 1)
    w.add(f"{start}classifier.weight", 1000, 2048)
    w.add(f"{start}classifier.bias", 1000)
    return hrnet_backbone(start, resolutions=4) | w.weights


def test_mmpretrain_s_hrnet(tmp_path: Path) -> None:
    others = {"neck.increase_modules.0.0.conv1.weight": torch.zeros(1), "head.fc.weight": torch.zeros(1)}
    content = {"state_dict": hrnet_backbone("backbone.", resolutions=4) | others}
    torch.save(content, tmp_path / "imagenet.pth")
    report = load_checkpoint(hrnet("simcc"), tmp_path / "imagenet.pth", backbone_only=True)
    assert set(report.matched) == set(hrnet_backbone())
    assert {"neck.increase_modules.0.0.conv1.weight", "fc.weight"} <= set(report.dropped)


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_an_imagenet_backbone_needs_to_be_asked_for(tmp_path: Path, head: str) -> None:
    torch.save(imagenet_hrnet(), tmp_path / "imagenet.pth")
    model = hrnet(head)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="the backbone fits, and backbone_only takes it alone"):
        load_checkpoint(model, tmp_path / "imagenet.pth")
    assert_equal_weights(model, before)
    report = load_checkpoint(model, tmp_path / "imagenet.pth", backbone_only=True)
    backbone = hrnet_backbone()
    after = model.state_dict()
    # the numbers differ from those of the smaller backbone where the lower resolutions' names come between
    saved = imagenet_hrnet()
    assert set(report.matched) == set(backbone)
    assert all(torch.equal(after[name], saved[name]) for name in backbone)
    head_names = {
        name for name in before if name.split(".")[0] in ("final_layer", "mlp_head_x", "mlp_head_y")
    }
    assert set(report.missing) == head_names
    assert all(torch.equal(after[name], before[name]) for name in head_names)
    assert set(report.dropped) == set(saved) - set(backbone)
    assert "missing (final_layer.weight; final_layer.bias" in str(report) and "dropped (" in str(report)


def test_torchvision_s_resnet(tmp_path: Path) -> None:
    classifier = {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}
    torch.save(resnet_backbone() | classifier, tmp_path / "resnet.pth")
    model = resnet("heatmap")
    report = load_checkpoint(model, tmp_path / "resnet.pth", backbone_only=True)
    assert report.dropped == ("fc.weight", "fc.bias")
    assert {name.split(".")[0] for name in report.missing} == {"deconv_layers", "final_layer"}


@pytest.mark.parametrize("blocks", [(1, 2, 2, 1), (1, 1, 1, 1)])
def test_a_backbone_of_another_depth_is_refused(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    """All of the smaller network's tensors lie in the larger one's file, with the same shapes."""
    torch.save(resnet_backbone(blocks=blocks), tmp_path / "resnet.pth")
    kind = "unexpected" if sum(blocks) > 5 else "missing"
    with pytest.raises(InputError, match=rf"tensors \d+ {kind} \(layer"):
        load_checkpoint(resnet("heatmap"), tmp_path / "resnet.pth", backbone_only=True)


def test_an_incomplete_backbone_is_refused(tmp_path: Path) -> None:
    weights = imagenet_hrnet()
    del weights["stage3.0.branches.1.0.conv2.weight"]
    torch.save(weights, tmp_path / "imagenet.pth")
    with pytest.raises(InputError, match=r"1 missing \(stage3.0.branches.1.0.conv2.weight\)"):
        load_checkpoint(hrnet("simcc"), tmp_path / "imagenet.pth", backbone_only=True)


def test_a_heatmap_checkpoint_is_no_simcc_checkpoint(tmp_path: Path) -> None:
    torch.save(OFFICIAL["HRNet"][2], tmp_path / "heatmap.pth")
    with pytest.raises(InputError, match=r"4 missing \(mlp_head_x.weight; .*; the backbone fits"):
        load_checkpoint(hrnet("simcc"), tmp_path / "heatmap.pth")
    torch.save(OFFICIAL["SimCC"][2], tmp_path / "simcc.pth")
    with pytest.raises(InputError, match=r"4 unexpected \(mlp_head_x.weight; "):
        load_checkpoint(hrnet("heatmap"), tmp_path / "simcc.pth")


def test_rtmpose_s_head_is_named(tmp_path: Path) -> None:
    head = final_layer("head.") | {
        "head.mlp.0.g": torch.ones(1),
        "head.mlp.1.weight": torch.zeros(256, 64),
        "head.gau.w": torch.zeros(511),
        "head.cls_x.weight": torch.zeros(96, 256),
        "head.cls_y.weight": torch.zeros(96, 256),
    }
    torch.save({"state_dict": hrnet_backbone("backbone.") | head}, tmp_path / "rtmpose.pth")
    with pytest.raises(InputError, match="this is RTMPose's head, which no network of this package has"):
        load_checkpoint(hrnet("simcc"), tmp_path / "rtmpose.pth")
    report = load_checkpoint(hrnet("simcc"), tmp_path / "rtmpose.pth", backbone_only=True)
    assert "gau.w" in report.dropped


def test_one_name_twice_and_integers_for_weights(tmp_path: Path) -> None:
    twice = MMPOSE["HRNet"] | {"keypoint_head.final_layer.bias": torch.zeros(4)}
    torch.save(twice, tmp_path / "twice.pth")
    with pytest.raises(
        InputError, match=r"expected one tensor per name, got two tensors for final_layer\.bias"
    ):
        load_checkpoint(hrnet("heatmap"), tmp_path / "twice.pth")
    integers = OFFICIAL["HRNet"][2] | {"final_layer.bias": torch.zeros(4, dtype=torch.int8)}
    torch.save(integers, tmp_path / "integers.pth")
    with pytest.raises(InputError, match=r"final_layer.bias \(4,\) of integers instead of \(4,\)"):
        load_checkpoint(hrnet("heatmap"), tmp_path / "integers.pth")


@pytest.mark.parametrize("name", list(OFFICIAL))
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_exports_have_the_names_of_their_layout(tmp_path: Path, name: str, suffix: str) -> None:
    make, head, weights = OFFICIAL[name]
    model = make(head)
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape) if value.is_floating_point() else torch.tensor(3))
    expected = model.to(memory_format=torch.channels_last).state_dict()
    for layout, names in (("official", weights), ("mmpose", MMPOSE[name])):
        path = tmp_path / f"{layout}{suffix}"
        export_checkpoint(model, path, layout=layout)
        saved = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
        if layout == "mmpose" and suffix == ".pth":
            saved = saved["state_dict"]
        assert set(saved) == set(names)
        # both lists name the tensors in the same order
        order = dict(zip(names, weights, strict=True))
        assert all(torch.equal(saved[there], expected[here]) for there, here in order.items())
        again = make(head)
        load_checkpoint(again, path)
        assert_equal_weights(again, expected)


def test_refused_exports(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout: expected one of 'official', 'mmpose', got 'timm'"):
        export_checkpoint(hrnet("simcc"), tmp_path / "a.pth", layout="timm")
    spec = ModelSpec(name="tiny", input_size=(32, 32), num_joints=4, channels_per_joint=5)
    model = ResNet(ResNetLayout((1, 1, 1, 1), 4, ()), spec)
    with pytest.raises(InputError, match="layout: expected 'official' for several channels per joint"):
        export_checkpoint(model, tmp_path / "a.pth", layout="mmpose")
    assert not list(tmp_path.iterdir())


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


def evil(kind: str, witness: Path) -> Any:
    code = f"open({str(witness)!r}, 'w')"
    if kind == "eval":
        return Call(eval, code)
    if kind == "exec":
        return Call(exec, code)
    if kind == "open":
        return Call(open, str(witness), "w")
    # everything by name that this needs, numpy's arrays and getattr, stands in training checkpoints as well
    return Call(np.zeros(3).tofile, str(witness))


@pytest.mark.parametrize("kind", ["eval", "exec", "open", "getattr"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["state_dict", "perf"])
def test_files_that_would_run_code_are_refused(tmp_path: Path, kind: str, legacy: bool, place: str) -> None:
    witness = tmp_path / "ran"
    content = {"state_dict": OFFICIAL["HRNet"][2]} | {place: evil(kind, witness)}
    path = tmp_path / "evil.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    named = {"eval": "eval", "exec": "exec", "open": "io.open", "getattr": "calls of functions"}[kind]
    with pytest.raises(InputError, match=rf"evil\.pth: expected .* only tensors, got one .* \({named}\)"):
        load_checkpoint(hrnet("heatmap"), path)
    assert not witness.exists()


def test_a_bare_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(evil("eval", witness), protocol=2))
    with pytest.raises(InputError, match=r"evil\.pth: expected a torch file that holds only tensors, got"):
        load_checkpoint(hrnet("heatmap"), tmp_path / "evil.pth")
    assert not witness.exists()


def test_the_same_files_run_code_where_they_are_trusted(tmp_path: Path) -> None:
    """The malicious files are real ones: the tests above would fail without the protection."""
    for kind in ("eval", "exec", "open", "getattr"):
        witness = tmp_path / kind
        path = tmp_path / f"{kind}.pth"
        torch.save({"perf": evil(kind, witness)}, path)
        torch.load(path, weights_only=False)
        assert witness.exists(), kind
