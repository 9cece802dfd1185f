"""Footage becomes image files: the right frames, each once, also after an interruption."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from cdkd_ext.data.frames import extract_frames, footage_files, list_frames, sampled
from cdkd_ext.errors import InputError
from cdkd_ext.images import read_image, save_image

COUNT = 23


def write_video(path: Path, count: int = COUNT, code: str = "mp4v") -> Path:
    """A video whose i-th frame is grey with the value 10 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (64, 48))
    for i in range(count):
        writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    writer.release()
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("count", "frames", "every", "expected"),
    [
        (10, 1, 0, [5]),
        (10, 2, 0, [2, 7]),
        (10, 5, 0, [1, 3, 5, 7, 9]),
        (3, 10, 0, [0, 1, 2]),
        (0, 10, 0, []),
        (10, 99, 4, [0, 4, 8]),
        (1, 99, 4, [0]),
    ],
)
def test_frames_are_sampled_evenly(count, frames, every, expected) -> None:
    assert sampled(count, frames, every) == expected


@pytest.mark.parametrize(("suffix", "code"), [("mp4", "mp4v"), ("avi", "MJPG")])
def test_the_frames_are_those_of_the_video(tmp_path: Path, suffix: str, code: str) -> None:
    video = write_video(tmp_path / f"clip.{suffix}", code=code)
    found = extract_frames(video, tmp_path / "out", every=5)
    assert [path.name for path in found.paths] == [f"{i:06d}.jpg" for i in (0, 5, 10, 15, 20)]
    assert found.lost == 0
    for path in found.paths:
        image = read_image(path)
        assert image.shape == (48, 64, 3)
        assert abs(float(image.mean()) - 10 * int(path.stem)) < 4


def test_frames_are_extracted_once(video: Path, tmp_path: Path) -> None:
    first = extract_frames(video, tmp_path / "out", frames=4)
    stamps = [path.stat().st_mtime_ns for path in first.paths]
    again = extract_frames(video, tmp_path / "out", frames=4)
    assert again == first and [path.stat().st_mtime_ns for path in again.paths] == stamps
    # another choice, or another video of the same name, has a folder of its own
    assert extract_frames(video, tmp_path / "out", frames=5).paths[0].parent != first.paths[0].parent
    write_video(video, 9)
    assert extract_frames(video, tmp_path / "out", frames=4).paths[0].parent != first.paths[0].parent


def test_an_interruption_keeps_what_there_is(video: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        assert what == "frames of clip.mp4" and total == 6
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_frames(video, tmp_path / "out", frames=6, progress=interrupt)
    files = sorted((tmp_path / "out").rglob("*"))
    kept = [file for file in files if file.suffix == ".jpg"]
    assert len(kept) == 3 and not any(file.name == "frames.json" for file in files)
    stamps = [file.stat().st_mtime_ns for file in kept]
    done = extract_frames(video, tmp_path / "out", frames=6)
    assert len(done.paths) == 6 and done.paths[:3] == kept
    assert [file.stat().st_mtime_ns for file in kept] == stamps


def test_a_video_that_is_cut_off_gives_what_it_has(tmp_path: Path) -> None:
    video = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    rng = np.random.default_rng(0)
    for _ in range(COUNT):
        writer.write(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    writer.release()
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    found = list_frames(str(video), tmp_path / "out", every=1)
    assert 5 < len(found.frames) < COUNT - 5
    lost = COUNT - len(found.frames)
    assert found.unreadable == [f"{video}: {lost} of {COUNT} frames"]
    # also when it is looked at again
    assert list_frames(str(video), tmp_path / "out", every=1) == found


@pytest.mark.parametrize("content", [b"", b"no video" * 400])
def test_a_video_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(content)
    with pytest.raises(InputError, match=r"clip\.mp4: expected a video, got a broken file") as caught:
        list_frames(str(video), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    # among others it is counted and named
    write_video(tmp_path / "other.mp4")
    found = list_frames(str(tmp_path / "*.mp4"), tmp_path / "out", frames=2)
    assert len(found.frames) == 2 and found.videos == [tmp_path / "other.mp4"]
    assert len(found.unreadable) == 1 and "clip.mp4" in found.unreadable[0]


def test_what_was_drawn_is_no_footage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "pred/a.jpg", "more/b.jpg", "more/keypoints.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("keypoints.json", "keypoints.csv"):
        (tmp_path / "pred" / name).touch()
    assert list(footage_files(str(tmp_path))) == [tmp_path / "a.jpg", tmp_path / "more/b.jpg"]
    assert f"left out what `cdkd predict` drew into {tmp_path / 'pred'}" in caplog.text
    # who names the folder wants it
    assert list(footage_files(str(tmp_path / "pred"))) == [tmp_path / "pred/a.jpg"]


def test_folders_globs_files_and_lists(tmp_path: Path) -> None:
    images = [tmp_path / "footage" / name for name in ("b.jpg", "a.PNG", "deep/c.webp", ".hidden/d.jpg")]
    for image in images:
        save_image(np.zeros((4, 4, 3), np.uint8), image)
    (tmp_path / "footage/notes.txt").write_text("no image")
    video = write_video(tmp_path / "footage/clip.mp4")

    def names(*sources: str) -> list[str]:
        found = list_frames(list(sources), tmp_path / "out", frames=2)
        return [frame.name.relative_to(tmp_path / "footage").as_posix() for frame in found.frames]

    frames = ["clip.mp4/000005.jpg", "clip.mp4/000017.jpg"]
    folder = str(tmp_path / "footage")
    assert names(folder) == ["a.PNG", "b.jpg", *frames, "deep/c.webp"]
    assert names(f"{folder}/*.jpg", str(video)) == ["b.jpg", *frames]
    assert names(f"{folder}/**/c.*", folder) == ["deep/c.webp", "a.PNG", "b.jpg", *frames]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "expected a folder, a glob, an image or a video, got .*nowhere, which does not exist"),
        ("*.gif", r"got .*\*\.gif, which does not exist"),
        ("empty", "expected images or videos, got .*empty, without any"),
        ("notes.txt", r"expected a folder, a glob, an image or a video \(.*\.avi.*\), got .*notes\.txt"),
    ],
)
def test_sources_without_footage(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=rf"data\.images: .*{message}"):
        list_frames(str(tmp_path / source), tmp_path / "out")


@pytest.mark.parametrize(("options", "name"), [({"frames": 0}, "frames"), ({"every": -1}, "every")])
def test_options_out_of_range(video: Path, tmp_path: Path, options, name: str) -> None:
    with pytest.raises(InputError, match=rf"data\.{name}: expected "):
        extract_frames(video, tmp_path / "out", **options)


def test_a_frame_that_is_gone_is_written_again(video: Path, tmp_path: Path) -> None:
    first = extract_frames(video, tmp_path / "out", frames=4)
    first.paths[2].unlink()
    assert extract_frames(video, tmp_path / "out", frames=4) == first and first.paths[2].exists()


def test_a_long_name_is_shortened(tmp_path: Path) -> None:
    video = write_video(tmp_path / f"{'街' * 83}.mp4")
    (frame,) = list_frames(str(video), tmp_path / "out", frames=1).frames
    assert len(os.fsencode(frame.path.parent.name)) < 120 and read_image(frame.path).shape == (48, 64, 3)
    assert frame.name.parent == video
