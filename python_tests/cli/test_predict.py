"""`cdkd predict`, from a source to files."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from cdkd_ext.checkpoints import save_model
from cdkd_ext.cli import main
from cdkd_ext.detectors import DetectionOptions
from cdkd_ext.errors import InputError, Terminated
from cdkd_ext.images import read_image, save_image
from cdkd_ext.inference import Predictor, results, sources
from cdkd_ext.inference.results import ResultFiles
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import create_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    torch.manual_seed(0)
    network = create_model(
        "lowres_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS, split_ratio=2.0
    )
    for module in network.modules():
        # joints all over the crop, as of a trained network
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    save_model(network, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two images, one broken one, and a video of six frames."""
    root = tmp_path / "source"
    rng = np.random.default_rng(2)
    for name in ("000004.png", "street.jpg"):
        save_image(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), root / name)
    (root / "broken.jpg").write_bytes(b"nothing")
    writer = cv2.VideoWriter(str(root / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(6):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return root


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_files(checkpoint, folder, tmp_path, capsys):
    output = tmp_path / "predictions"
    options = ["--boxes=whole", f"--output={output}", "--every=2", "--min_joint_score=0"]
    assert main(["predict", str(checkpoint), str(folder), *options]) == 0
    printed = capsys.readouterr().out
    assert re.match(r"6 of 6 frames, 5 people, [\d.]+ frames/s \(reading \d+ %, boxes", printed)
    assert "could not read 1" in printed and "broken.jpg" in printed
    assert sorted(path.name for path in output.iterdir()) == [
        "000004.png", "keypoints.csv", "keypoints.json", "street.jpg", "walk.mp4",
    ]  # fmt: skip
    results = json.loads((output / "keypoints.json").read_text())
    assert [row["image_id"] for row in results[:2]] == [4, str(folder / "street.jpg")]
    assert results[-1]["image_id"] == f"{folder}/walk.avi/000004.jpg" and results[0]["category_id"] == 1
    poses = Predictor.load(checkpoint)(folder / "000004.png", [(0, 0, 64, 48)])
    points = np.array(results[0]["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(points[:, :2], poses.keypoints[0], atol=1e-3)
    np.testing.assert_allclose(points[:, 2], poses.scores[0], atol=1e-3)
    counted = poses.scores[0] > 0.02
    assert results[0]["score"] == pytest.approx(
        poses.scores[0][counted].mean() if counted.any() else 0, abs=1e-4
    )
    table = rows_of(output / "keypoints.csv")
    assert len(table) == 5 * 17
    assert list(table[0]) == ["source", "frame", "person", "joint", "x", "y", "score"]
    assert [row["frame"] for row in table[2 * 17 :: 17]] == ["0", "2", "4"]
    assert table[0]["joint"] == "nose" and float(table[0]["x"]) == pytest.approx(points[0, 0], abs=0.01)
    video = cv2.VideoCapture(str(output / "walk.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    video.release()
    assert (read_image(output / "000004.png") != read_image(folder / "000004.png")).any()


def test_people_keep_their_numbers_in_a_video_alone(checkpoint, folder, tmp_path):
    (tmp_path / "boxes.csv").write_text("0,0,20,40\n40,0,20,40\n")
    found = {}
    for tracking in ("identities", "smooth", "none"):
        output = tmp_path / tracking
        arguments = [str(checkpoint), str(folder / "walk.avi"), f"--boxes={tmp_path / 'boxes.csv'}"]
        assert (
            main(["predict", *arguments, f"--output={output}", f"--tracking={tracking}", "--draw=false"]) == 0
        )
        assert sorted(path.name for path in output.iterdir()) == ["keypoints.csv", "keypoints.json"]
        found[tracking] = rows_of(output / "keypoints.csv")
    assert [row["person"] for row in found["none"][::17]] == ["0", "1"] * 6
    assert found["identities"] == found["none"]
    places = [
        np.array([[float(row["x"]), float(row["y"])] for row in found[name]]) for name in ("smooth", "none")
    ]
    assert (places[0] != places[1]).any()


def test_results_are_lazy(checkpoint, folder):
    predictor = Predictor.load(checkpoint)
    results = predictor(folder / "walk.avi")
    first = next(results)
    assert first.boxes.tolist() == [[0, 0, 64, 48]] and first.poses.keypoints.shape == (1, 17, 2)
    assert [result.frame.number for result in predictor.follow(folder / "walk.avi", "whole", frames=2)] == [
        0,
        1,
    ]
    broken = next(predictor.follow(folder / "broken.jpg", "whole"))
    assert broken.frame.error and broken.poses.keypoints.shape == (0, 17, 2)
    with pytest.raises(InputError, match="every: expected a positive number, got 0"):
        predictor.follow(folder, "whole", every=0)


@pytest.mark.parametrize(("signal", "status"), [(KeyboardInterrupt, 0), (Terminated, 143)])
def test_a_stream_that_is_ended_keeps_what_came(checkpoint, folder, tmp_path, monkeypatch, signal, status):
    add = ResultFiles.add

    def interrupted(self, result):
        if result.frame.number == 2:
            raise signal
        add(self, result)

    monkeypatch.setattr(ResultFiles, "add", interrupted)
    address = (folder / "walk.avi").as_uri()
    for source, live in ((address, True), (str(folder / "walk.avi"), False)):
        output = tmp_path / str(live)
        given = ["predict", str(checkpoint), source, "--boxes=whole", f"--output={output}"]
        # a stream has no other end
        assert main(given) == (status if live else {KeyboardInterrupt: 130, Terminated: 143}[signal])
        assert len(rows_of(output / "keypoints.csv")) == 2 * 17


def test_boxes_of_images_that_do_not_come_are_said(checkpoint, folder, tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text("000004.png,0,0,20,40\nother.png,0,0,20,40\n")
    arguments = [str(checkpoint), str(folder / "000004.png"), f"--boxes={tmp_path / 'boxes.csv'}"]
    assert main(["predict", *arguments, f"--output={tmp_path / 'out'}"]) == 0
    assert "has boxes of 1 images that did not come: other.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "nowhere.jpg", "--boxes=whole"], "source: expected a folder, a glob, an image or a video"),
        (
            ["nowhere.onnx", "SOURCE", "--boxes=whole"],
            "nowhere.onnx: expected an ONNX file, got no such file",
        ),
        (["MODEL", "SOURCE"], "boxes and detector: expected one of them"),
        (
            ["MODEL", "SOURCE", "--boxes=whole", "--every=0"],
            "argument --every: expected a positive integer, got 0",
        ),
        (
            ["MODEL", "SOURCE", "--boxes=whole", "--draw=maybe"],
            "argument --draw: expected true or false, got maybe",
        ),
        (["MODEL", "SOURCE", "--boxes=whole", "--output=FILE"], "output: expected a folder, got the file"),
        (
            ["MODEL", "SOURCE", "--boxes=whole", "--device=gpu"],
            "device: expected cpu, cuda or another accelerator, got gpu",
        ),
        (
            ["MODEL", "SOURCE", "--boxes=whole", "--device=cuda:99"],
            "device: expected cpu, or one that is there, got cuda:99",
        ),
        (["MODEL", "SOURCE", "--boxes=whole", "--padding=0"], "padding: expected a positive number, got 0.0"),
        (
            ["MODEL", "SOURCE", "--boxes=whole", "--padding=nan"],
            "padding: expected a positive number, got nan",
        ),
        (
            ["MODEL", "SOURCE", "--boxes=whole", "--min_box_score=nan"],
            "min_score: expected a number, got nan",
        ),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    checkpoint, folder, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    places = {"MODEL": str(checkpoint), "SOURCE": str(folder)}
    before = sorted(tmp_path.iterdir())
    assert main(["predict", *(places.get(argument, argument) for argument in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cdkd: {message}")
    assert sorted(tmp_path.iterdir()) == before


def test_drawn_files_do_not_replace_those_of_the_source(checkpoint, folder, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    words = ["predict", str(checkpoint), "--boxes=whole"]
    for source in (folder, folder / "street.jpg", folder / "walk.avi", folder / "*.png"):
        assert main([*words, str(source), f"--output={folder}"]) == 2
        assert "output: expected another folder than that of the source's files" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert main([*words, str(folder), f"--output={folder}", "--draw=false"]) == 0
    assert {path.name for path in folder.iterdir()} - {*before} == {"keypoints.csv", "keypoints.json"}
    # what lies below the source is read, but what was drawn there
    for _ in range(2):
        assert main([*words, str(folder), f"--output={folder / 'drawn'}"]) == 0
        assert "9 of 9 frames" in capsys.readouterr().out


def test_nobody_elses_files_are_replaced(checkpoint, folder, tmp_path, capsys):
    words = ["predict", str(checkpoint), "--boxes=whole"]
    # photographs of one's own below the source
    for name in ("frames", "more"):
        save_image(read_image(folder / "street.jpg"), folder / name / "street.jpg")
    before = (folder / "frames/street.jpg").read_bytes()
    assert main([*words, str(folder), f"--output={folder / 'frames'}"]) == 2
    assert "output: expected another folder" in capsys.readouterr().err
    # links beside which drawn files would lie
    (tmp_path / "links").mkdir()
    (tmp_path / "links/street.jpg").symlink_to(folder / "street.jpg")
    assert main([*words, str(tmp_path / "links"), f"--output={tmp_path / 'links'}"]) == 2
    assert "output: expected another folder" in capsys.readouterr().err
    assert (tmp_path / "links/street.jpg").is_symlink()
    assert (folder / "frames/street.jpg").read_bytes() == before


def test_drawn_files_alone_are_no_source(checkpoint, folder, tmp_path, capsys):
    words = ["predict", str(checkpoint), "--boxes=whole"]
    output = tmp_path / "outer/drawn"
    assert main([*words, str(folder / "street.jpg"), f"--output={output}"]) == 0
    assert main([*words, str(tmp_path / "outer"), f"--output={output}"]) == 2
    assert "source: expected images or videos, got" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [119.471, 239.7625, 29.97, 25.0])
def test_a_drawn_video_has_its_sources_rate(checkpoint, tmp_path, rate):
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), rate, (64, 48))
    for _ in range(6):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    words = ["predict", str(checkpoint), str(tmp_path / "a.avi"), "--boxes=whole"]
    assert main([*words, f"--output={tmp_path / 'out'}", "--every=3"]) == 0
    video = cv2.VideoCapture(str(tmp_path / "out/a.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(rate / 3, abs=0.006)
    video.release()


def test_a_drawn_video_stays_where_frames_are_lost(checkpoint, tmp_path, monkeypatch):
    """Lost frames repeat the one before, so that the rest comes when it should."""
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for number in range(8):
        writer.write(np.full((48, 64, 3), 30 * number, np.uint8))
    writer.release()
    retrieve = sources._retrieved
    numbers = iter(range(8))
    monkeypatch.setattr(
        sources, "_retrieved", lambda capture: None if next(numbers) in (1, 2, 5) else retrieve(capture)
    )
    words = ["predict", str(checkpoint), str(tmp_path / "a.avi"), "--boxes=whole", "--min_joint_score=2"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == 0
    video = cv2.VideoCapture(str(tmp_path / "out/a.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    shown = [round(video.read()[1].mean() / 30) for _ in range(8)]
    assert shown == [0, 0, 0, 3, 4, 4, 6, 7] and not video.read()[0]
    video.release()


@pytest.mark.parametrize("signal", [KeyboardInterrupt, Terminated])
def test_what_came_before_ctrl_c_is_kept(checkpoint, folder, tmp_path, monkeypatch, capsys, signal):
    add = ResultFiles.add

    def interrupted(self, result):
        add(self, result)
        if result.part.kind == "video" and result.frame.number == 2:
            raise signal

    monkeypatch.setattr(ResultFiles, "add", interrupted)
    words = ["predict", str(checkpoint), str(folder), "--boxes=whole", "--min_joint_score=0"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == {KeyboardInterrupt: 130, Terminated: 143}[signal]
    printed = capsys.readouterr()
    assert "of 9 frames" in printed.out and f"written to {tmp_path / 'out'}" in printed.out
    assert printed.err.startswith("cdkd: interrupted") or printed.err.startswith("cdkd: terminated")
    rows = rows_of(tmp_path / "out/keypoints.csv")
    assert len(rows) == (2 + 3) * 17 and json.loads((tmp_path / "out/keypoints.json").read_text())
    video = cv2.VideoCapture(str(tmp_path / "out/walk.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    video.release()


def test_nothing_drawn_is_said(checkpoint, folder, tmp_path, capsys):
    words = ["predict", str(checkpoint), str(folder), "--boxes=whole", f"--output={tmp_path / 'out'}"]
    said = "no joint of the 8 people has a score of --min_joint_score 1.5 or more, so nobody is drawn"
    assert main([*words, "--min_joint_score=1.5"]) == 0
    assert said in capsys.readouterr().out
    assert main([*words, "--min_joint_score=1.5", "--draw=false"]) == 0
    assert "so nobody is drawn" not in capsys.readouterr().out
    assert main([*words, "--min_joint_score=0"]) == 0
    assert "so nobody is drawn" not in capsys.readouterr().out


def test_a_name_that_is_no_text_loses_nothing(checkpoint, folder, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / "latin").mkdir()
    try:
        (tmp_path / "latin" / name).write_bytes((folder / "street.jpg").read_bytes())
        (tmp_path / "latin" / os.fsdecode(b"torn\xe9.jpg")).write_bytes(b"nothing")
    except OSError:
        pytest.skip("a file system of text alone")
    assert (
        main(
            [
                "predict",
                str(checkpoint),
                str(tmp_path / "latin"),
                "--boxes=whole",
                f"--output={tmp_path / 'out'}",
            ]
        )
        == 0
    )
    assert "torn\\udce9.jpg" in capsys.readouterr().out
    assert rows_of(tmp_path / "out/keypoints.csv")[0]["source"].endswith("caf\\udce9.jpg")
    (row,) = json.loads((tmp_path / "out/keypoints.json").read_text())
    assert row["image_id"].endswith(name)
    assert (tmp_path / "out/caf_.jpg").is_file()


def test_a_source_of_which_nothing_can_be_read_is_no_success(checkpoint, folder, tmp_path, capsys):
    words = ["predict", str(checkpoint), str(folder / "broken.jpg"), "--boxes=whole"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == 1
    printed = capsys.readouterr()
    assert "could not read 1" in printed.out
    assert printed.err.startswith("cdkd: source: expected a frame that can be read, got none in")


def test_nothing_takes_no_earlier_calls_place(checkpoint, folder, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    words = ["predict", str(checkpoint), "--boxes=whole", f"--output={output}"]
    assert main([*words, str(folder / "street.jpg")]) == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert main([*words, str(folder / "broken.jpg")]) == 1
    assert f"{output} stays as it was" in capsys.readouterr().out

    def interrupted(self, result):
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultFiles, "add", interrupted)
    assert main([*words, str(folder / "street.jpg")]) == 130
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert f"{output} stays as it was" in capsys.readouterr().out


def test_a_video_without_frames_is_no_success(checkpoint, tmp_path, capsys):
    cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)).release()
    words = ["predict", str(checkpoint), str(tmp_path / "a.avi"), "--boxes=whole"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == 1
    assert "source: expected a frame that can be read, got none in" in capsys.readouterr().err


def test_a_drawn_video_that_cannot_be_played_does_not_appear(
    checkpoint, folder, tmp_path, monkeypatch, capsys
):
    opened = results.opened_video

    def cut(path):
        # as a disk leaves it that was full before the video's end
        Path(path).write_bytes(Path(path).read_bytes()[:100])
        return opened(path)

    monkeypatch.setattr(results, "opened_video", cut)
    words = ["predict", str(checkpoint), str(folder / "walk.avi"), "--boxes=whole"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == 2
    assert (
        "walk.mp4: expected a disk that takes it, got a video that cannot be played"
        in capsys.readouterr().err
    )
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_a_photograph_of_that_name_is_not_replaced(checkpoint, folder, tmp_path, capsys):
    own = tmp_path / "mine/street.jpg"
    save_image(read_image(folder / "street.jpg"), own)
    before = own.read_bytes()
    words = [
        "predict",
        str(checkpoint),
        str(folder / "street.jpg"),
        "--boxes=whole",
        f"--output={own.parent}",
    ]
    assert main(words) == 2
    expected = (
        "output: expected a folder without files that drawn ones would replace, or that of an earlier call"
    )
    assert expected in capsys.readouterr().err
    assert own.read_bytes() == before and len(list(own.parent.iterdir())) == 1


def test_a_glob_leaves_out_what_was_drawn_too(checkpoint, folder, capsys):
    words = [
        "predict",
        str(checkpoint),
        str(folder / "**/*.jpg"),
        "--boxes=whole",
        f"--output={folder / 'drawn'}",
    ]
    for more in ([], [], ["--draw=false"]):
        assert main([*words, *more]) == 0
        assert "2 of 2 frames, 1 people" in capsys.readouterr().out
    words[2] = str(folder / "drawn/*.jpg")
    assert main([*words, "--draw=false"]) == 0
    assert "1 of 1 frames" in capsys.readouterr().out


def test_a_files_boxes_of_any_score_are_taken(checkpoint, folder, tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text("street.jpg,1,2,30,40,0.2\n")
    words = ["predict", str(checkpoint), str(folder / "street.jpg"), f"--boxes={tmp_path / 'boxes.csv'}"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == 0
    assert "1 people" in capsys.readouterr().out
    assert main([*words, f"--output={tmp_path / 'out'}", "--min_box_score=0.35"]) == 0
    assert "0 people" in capsys.readouterr().out
    assert main([*words[:3], "--detector=a.onnx", "--min_box_score=0", f"--output={tmp_path / 'out'}"]) == 2
    assert (
        "min_box_score: expected a number above 0, up to 1, of a detector, got 0" in capsys.readouterr().err
    )


def test_a_detector_is_read_as_its_options_say(checkpoint, folder, tmp_path, monkeypatch, capsys):
    asked = []

    def detector(path, options, **others):
        options.validate()
        asked.append((path, options, others))
        return lambda image: (np.array([[1, 2, 30, 40]], np.float32), np.array([0.9], np.float32))

    monkeypatch.setattr("cdkd_ext.cli.predict.Detector", detector)
    monkeypatch.setattr("cdkd_ext.inference.person_boxes.Detector", type(lambda: None))
    words = ["predict", str(checkpoint), str(folder / "street.jpg"), f"--output={tmp_path / 'out'}"]
    chosen = [
        "--detection.tiles=4",
        "--detection.size=[64, 96]",
        "--detection.layout=yolox",
        "--min_box_score=0.1",
    ]
    assert main([*words, "--detector=a.onnx", "--threads=1", *chosen]) == 0
    assert "1 people" in capsys.readouterr().out
    ((path, options, others),) = asked
    assert path == "a.onnx" and others == {"threads": 1, "cpu": True}
    assert options == DetectionOptions(min_score=0.1, tiles=4, size=(64, 96), layout="yolox")
    for more, message in (
        (["--detector=a.onnx", "--detection.tiles=0"], "detection.tiles: expected 1 to 64, got 0"),
        (
            ["--boxes=whole", "--detection.tiles=2"],
            "detection.tiles: expected --detector FILE, got a value without",
        ),
        (["--detector=a.onnx", "--detection.size=64"], "expected a height and a width, such as"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err


def test_people_are_drawn_by_their_own_size(checkpoint, tmp_path):
    """Of a person of 32 pixels in a large image the lines leave most to be seen."""
    save_image(np.full((1080, 1920, 3), 90, np.uint8), tmp_path / "a.png")
    changed = []
    for height in (32, 900):
        (tmp_path / "boxes.csv").write_text(f"x,y,w,h\n500,100,{height * 0.6},{height}\n")
        words = ["predict", str(checkpoint), str(tmp_path / "a.png"), f"--boxes={tmp_path / 'boxes.csv'}"]
        assert main([*words, f"--output={tmp_path / 'out'}", "--min_joint_score=0"]) == 0
        drawn = read_image(tmp_path / "out/a.png")
        part = drawn[100 : 100 + height, 500 : 500 + int(height * 0.6)]
        changed.append(float((part != 90).any(-1).mean()))
    assert 0 < changed[0] < 0.5 and changed[1] > 0


def test_boxes_far_away_are_drawn_at_the_edge(checkpoint, folder, tmp_path):
    (tmp_path / "boxes.csv").write_text("x,y,w,h\n3e9,10,20,20\n-50,-3e9,90,20\n")
    words = ["predict", str(checkpoint), str(folder / "walk.avi"), f"--boxes={tmp_path / 'boxes.csv'}"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out/walk.mp4").is_file()


def test_images_of_one_number_keep_their_names(checkpoint, folder, tmp_path):
    for name in ("a", "b"):
        save_image(read_image(folder / "street.jpg"), folder / name / "1.png")
    words = ["predict", str(checkpoint), str(folder), "--boxes=whole", "--draw=false"]
    assert main([*words, f"--output={tmp_path / 'out'}"]) == 0
    ids = {row["image_id"] for row in json.loads((tmp_path / "out/keypoints.json").read_text())}
    assert {4, f"{folder}/a/1.png", f"{folder}/b/1.png"} <= ids and 1 not in ids


def test_help_needs_neither_torch_nor_an_extra(run_without):
    code = "from cdkd_ext.cli import main\nmain(['predict', '--help'])"
    done = run_without(["torch", "jsonargparse", "safetensors", "rich", "yaml"], code)
    assert "a camera's number" in " ".join(done.stdout.split()), done.stderr


def test_what_came_before_a_mistake_is_kept(checkpoint, tmp_path, capsys):
    """Two images of one name are known when the second comes."""
    image = np.zeros((48, 64, 3), np.uint8)
    for name in ("a/0001.jpg", "a/0002.jpg", "b/0001.jpg"):
        save_image(image, tmp_path / "source" / name)
    (tmp_path / "boxes.csv").write_text("0001.jpg,0,0,20,40\n0002.jpg,0,0,20,40\n")
    output = tmp_path / "found"
    words = [
        str(checkpoint),
        str(tmp_path / "source"),
        f"--boxes={tmp_path / 'boxes.csv'}",
        f"--output={output}",
    ]
    assert main(["predict", *words, "--draw=false"]) == 2
    captured = capsys.readouterr()
    assert "expected one image's name, got the name of" in captured.err and "2 of 3 frames" in captured.out
    assert len(json.loads((output / "keypoints.json").read_text())) == 2
    assert len(rows_of(output / "keypoints.csv")) == 2 * 17
