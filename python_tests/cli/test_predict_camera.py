"""`cdkd predict` of a camera or a stream: what a stand-in for one gives, and Ctrl-C, which ends it."""

from __future__ import annotations

import csv
import json
import signal
import threading

import cv2
import numpy as np
import pytest

from cdkd_ext.checkpoints import save_model
from cdkd_ext.cli import main
from cdkd_ext.inference import ahead
from cdkd_ext.inference.results import ResultFiles
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import create_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_model(create_model("lowres_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS), path)
    return str(path)


@pytest.fixture
def predict(checkpoint, captures, clock, tmp_path, capsys):
    """Runs the command on a script of frames; returns status, lines, frames of the table, and of the results."""

    def run(script, *options, source="0"):
        captures.scripts[int(source) if source.isdecimal() else source] = script
        output = tmp_path / "out"
        status = main(["predict", checkpoint, source, "--boxes=whole", f"--output={output}", *options])
        printed = capsys.readouterr()
        if not (output / "keypoints.csv").exists():
            assert not output.exists() or not list(output.iterdir())
            return status, printed.err.splitlines(), [], []
        with open(output / "keypoints.csv", newline="") as file:
            rows = [(row["source"], int(row["frame"])) for row in csv.DictReader(file)]
        results = [row["image_id"] for row in json.loads((output / "keypoints.json").read_text())]
        return status, printed.out.splitlines(), rows, results

    return run


def shots(count):
    return [np.full((48, 64, 3), 5 * number, np.uint8) for number in range(count)]


def interrupt():
    """Ctrl-C, while the command waits for the frame that this stands for."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    hanging.wait(30)
    return None


hanging = threading.Event()


@pytest.fixture(autouse=True)
def nothing_hangs(monkeypatch):
    monkeypatch.setattr(ahead, "_SECONDS_TO_END", 0.05)
    hanging.clear()
    yield
    hanging.set()
    wait_for_readers()


def wait_for_readers():
    """Let the threads that read ahead come to their end: nobody waits for one that is busy."""
    for thread in threading.enumerate():
        if thread.name == "cdkd-read-ahead":
            thread.join(60)


def test_a_camera_is_predicted_to_its_end(predict, captures, tmp_path):
    status, lines, rows, results = predict([*shots(3), None, "torn", *shots(2)], "--min_joint_score=0")
    assert status == 0 and lines[0].startswith("6 frames, 5 people, ")
    assert lines[1] == "could not read 1 (camera-0/000003.jpg: cannot be decoded)"
    assert rows[::17] == [("camera-0", number) for number in (0, 1, 2, 4, 5)]
    assert results == [f"camera-0/{number:06d}.jpg" for number in (0, 1, 2, 4, 5)]
    video = cv2.imread(str(tmp_path / "out/camera-0.mp4"))
    assert video is None and (tmp_path / "out/camera-0.mp4").stat().st_size > 0
    # looked at once, then read, never both
    wait_for_readers()
    assert captures.opened == [0, 0] and not captures.open_now


def test_a_stream_stops_after_so_many_frames(predict, captures):
    status, lines, rows, _ = predict(
        shots(50), "--every=2", "--frames=3", "--draw=false", source="rtsp://camera.local/a"
    )
    assert status == 0 and lines[0].startswith("3 of 3 frames")
    assert rows[::17] == [("rtsp://camera.local/a", number) for number in (0, 2, 4)]
    wait_for_readers()
    assert not captures.open_now


def test_ctrl_c_ends_a_camera_that_hangs(predict):
    status, lines, rows, results = predict([*shots(4), interrupt])
    # what had been read in advance is not waited for
    assert status == 0 and 1 <= len(results) <= 4 and len(rows) == 17 * len(results)
    assert lines[0].startswith(f"{len(results)} frames, {len(results)} people")


def test_ctrl_c_before_the_first_frame_leaves_empty_files(predict):
    status, lines, rows, results = predict([interrupt])
    assert status == 0 and lines[0].startswith("0 frames, 0 people") and (rows, results) == ([], [])


def test_ctrl_c_leaves_no_frame_half_written(predict, monkeypatch):
    write = ResultFiles._write_rows

    def interrupted(self, result):
        if result.frame.number == 1:
            signal.raise_signal(signal.SIGINT)
        write(self, result)

    monkeypatch.setattr(ResultFiles, "_write_rows", interrupted)
    status, lines, rows, results = predict(shots(9))
    assert status == 0 and lines[0].startswith("2 frames, 2 people")
    assert len(rows) == 2 * 17 and len(results) == 2


@pytest.mark.parametrize(
    ("script", "source", "message"),
    [
        (
            [],
            "0",
            "source: expected a camera or a stream that gives frames, got camera-0, which gives nothing",
        ),
        (
            None,
            "7",
            "source: expected a camera's number or a stream's address, got camera-7, which cannot be opened",
        ),
        (None, "rtsp://camera.local/b", "which cannot be opened"),
    ],
)
def test_a_camera_that_is_not_there_is_one_line(predict, captures, checkpoint, script, source, message):
    if script is None:
        captures.open_now.add(int(source) if source.isdecimal() else source)
    status, lines, rows, _ = predict(script or [], source=source)
    assert status == 2 and rows == []
    (line,) = lines
    assert line.startswith("cdkd: ") and message in line
