"""The comparison of networks in files."""

from __future__ import annotations

import pytest

from bench.inference import networks
from cdkd_ext.deployment import CropDecoder, write_onnx
from cdkd_ext.deployment.export import described
from cdkd_ext.inference.exported_network import ExportedNetwork
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import create_model

pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("few_layers")


def test_networks_are_timed_one_crop_and_many(tmp_path, capsys, monkeypatch):
    """Each call takes the time that a clock says, one before it untimed, and the median of the rest is printed."""
    for size in (32, 64):
        network = create_model(
            "lowres_small", input_size=(size, size), num_joints=17, joints=COCO_JOINTS
        ).eval()
        metadata = described(network.spec, precision="float32", flip_test=False)
        write_onnx(CropDecoder(network), tmp_path / f"student{size}.onnx", metadata=metadata)
    # calls of the first file take 0.25 s, of the second 0.5 s
    durations = iter([0.25, 0.5] * 4)
    now, events = [0.0], []

    def clock():
        events.append("clock")
        if events.count("clock") % 2 == 0:
            now[0] += next(durations)
        return now[0]

    called = ExportedNetwork.__call__

    def recorded(network, crops, to_image):
        events.append(len(crops))
        return called(network, crops, to_image)

    monkeypatch.setattr(ExportedNetwork, "__call__", recorded)
    monkeypatch.setitem(networks.CLOCKS, "wall", clock)
    networks.main(
        [
            str(tmp_path / "student32.onnx"),
            str(tmp_path / "student64.onnx"),
            "--crops",
            "1",
            "3",
            "--rounds",
            "2",
        ]
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["network", "input", "ms", "for", "1", "ms", "for", "3"]
    assert lines[2:] == [
        ["student32.onnx", "32x32", "250.00", "250.00"],
        ["student64.onnx", "64x64", "500.00", "500.00"],
    ]
    # two networks, two rounds
    assert events == [event for crops in (1, 3) for event in [crops, "clock", crops, "clock"] * 4]
