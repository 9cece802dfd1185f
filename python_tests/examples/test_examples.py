"""Every example, run as it stands in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cdkd_ext.data import crop_matrix, region_from_box

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CHECKOUT / "examples").glob("*.py"))
WRITES = {
    "adapt": ["network.onnx", "network.yaml", "people", "runs"],
    "distil": ["student.pth"],
    "export_onnx": ["people", "student.onnx", "student.safetensors"],
    "export_weights": ["mmpose.pth", "official.pth"],
    "own_data": ["lamps", "runs"],
    "own_teacher": ["people", "runs", "teacher.onnx", "teacher.yaml", "teacher_check.png"],
    "predict": ["people", "pose.png", "runs"],
    "train": ["runs"],
}
CALLED_AGAIN = ("adapt", "own_teacher", "predict")


@pytest.mark.long
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_writes_what_it_says(example, tmp_path, write_teacher):
    if example.stem == "adapt" and find_spec("onnx2torch") is None:
        pytest.skip("adapting needs onnx2torch, which `make test` installs")
    # the reader has one
    files = {"adapt": "network.onnx", "own_teacher": "teacher.onnx"}
    if example.stem in files:
        write_teacher(tmp_path / files[example.stem])
    for _ in range(1 + (example.stem in CALLED_AGAIN)):
        done = subprocess.run(
            [sys.executable, str(example)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == WRITES.get(example.stem, [])


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_device_makes_the_crops_that_networks_were_trained_on(unbiased):
    text = (CHECKOUT / "examples/export_onnx.py").read_text()
    lines = text[text.index("scale = ") : text.index("area = ")]
    (x, y, w, h), (height, width) = (10, 5, 100, 120), (64, 48)
    names = {"metadata": {"padding": "1.25", "unbiased_crop": str(unbiased).lower()}, "np": np, "json": json}
    exec(
        lines, names | (values := {"x": x, "y": y, "w": w, "h": h, "height": height, "width": width}), values
    )
    region = region_from_box((x, y, w, h), (height, width), 1.25)
    np.testing.assert_allclose(values["to_crop"], crop_matrix(region, (height, width), unbiased=unbiased))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short_and_shown_in_the_documentation(example):
    assert len(example.read_text().splitlines()) <= 40
    pages = [path.read_text() for path in (CHECKOUT / "docs").rglob("*.md")]
    assert any(f"<!-- source: examples/{example.name} -->" in page for page in pages)
