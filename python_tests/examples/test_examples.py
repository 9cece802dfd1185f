"""Every example, run as it stands in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

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


@pytest.mark.long
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_writes_what_it_says(example, tmp_path, write_teacher):
    if example.stem == "adapt" and find_spec("onnx2torch") is None:
        pytest.skip("adapting needs onnx2torch, which `make test` installs")
    # the reader has one
    files = {"adapt": "network.onnx", "own_teacher": "teacher.onnx"}
    if example.stem in files:
        write_teacher(tmp_path / files[example.stem])
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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short_and_shown_in_the_documentation(example):
    assert len(example.read_text().splitlines()) <= 40
    pages = [path.read_text() for path in (CHECKOUT / "docs").rglob("*.md")]
    assert any(f"<!-- source: examples/{example.name} -->" in page for page in pages)
