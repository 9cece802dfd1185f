"""Frames of images, videos and what cannot be read."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.images import save_image
from cdkd_ext.inference.sources import open_source, read_frames


def write_video(path, frames, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 12 * number, np.uint8))
    writer.release()


def frames_of(source, every=1):
    return [frame for part in open_source(source) for frame in read_frames(part, every=every)]


def test_frames_come_in_order_with_their_times(tmp_path):
    write_video(tmp_path / "clip.avi", 12)
    (part,) = open_source(tmp_path / "clip.avi")
    assert part.kind == "video" and part.frames == 12 and part.rate == pytest.approx(10)
    frames = frames_of(tmp_path / "clip.avi", every=5)
    assert [frame.number for frame in frames] == [0, 5, 10]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.5, 1.0])
    assert frames[1].name == tmp_path / "clip.avi" / "000005.jpg"
    assert abs(frames[2].image.mean() - 120) < 4


def test_a_stream_ends_where_nothing_comes_any_more(tmp_path, clock):
    write_video(tmp_path / "clip.avi", 4)
    address = (tmp_path / "clip.avi").as_uri()
    (part,) = open_source(address)
    assert part.kind == "live" and part.frames is None and part.name == address
    frames = frames_of(address)
    assert [frame.number for frame in frames] == [0, 1, 2, 3] and not any(frame.error for frame in frames)
    assert all(before.seconds <= after.seconds for before, after in pairwise(frames))


def test_a_folder_has_images_and_videos_sorted(tmp_path):
    for name in ("b.png", "a.jpg"):
        save_image(np.zeros((8, 8, 3), np.uint8), tmp_path / name)
    write_video(tmp_path / "c.avi", 2)
    (tmp_path / "notes.txt").write_text("nothing")
    assert [frame.name.name for frame in frames_of(tmp_path)] == [
        "a.jpg",
        "b.png",
        "000000.jpg",
        "000001.jpg",
    ]
    assert [frame.name.name for frame in frames_of(str(tmp_path / "*.png"))] == ["b.png"]


def test_a_folder_of_a_glob_may_have_brackets(tmp_path, monkeypatch):
    for name in ("b.png", "a.png"):
        save_image(np.zeros((8, 8, 3), np.uint8), tmp_path / "odd name [1]" / name)
    found = ["a.png", "b.png"]
    assert [frame.name.name for frame in frames_of(tmp_path / "odd name [1]" / "*.png")] == found
    monkeypatch.chdir(tmp_path)
    assert [frame.name.name for frame in frames_of("odd name [1]/*.png")] == found
    assert [frame.name.name for frame in frames_of("odd*/[a].png")] == ["a.png"]


def test_what_is_broken_is_named_and_the_rest_goes_on(tmp_path):
    save_image(np.zeros((8, 8, 3), np.uint8), tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 99)
    by_name = {frame.name.name: frame for frame in frames_of(tmp_path)}
    assert by_name["good.png"].error is None and by_name["good.png"].image is not None
    for name in ("bad.png", "bad.mp4"):
        assert by_name[name].image is None and name in by_name[name].error


def test_a_video_that_is_cut_off_says_which_frames_are_lost(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 240, 320, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 240))
    for image in noise:
        writer.write(image)
    writer.release()
    content = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) * 3 // 4])
    frames = frames_of(tmp_path / "cut.avi")
    lost = [frame for frame in frames if frame.error]
    read = [frame for frame in frames if frame.error is None]
    assert 5 <= len(read) < 20 and len(read) + len(lost) <= 20
    assert all("cannot be decoded" in frame.error or "ended after" in frame.error for frame in lost)


@pytest.mark.parametrize(
    ("frames", "every", "lost"),
    [
        # sound is longer than the picture
        ("1" * 50, 1, {50: "ended after 50 of about 60 frames"}),
        ("1" * 50, 10, {50: "ended after 50 of about 60 frames"}),
        ("1" * 60, 1, {}),
        ("111001x1" + "1" * 52, 1, {n: f"/{n:06d}.jpg: cannot be decoded" for n in (3, 4, 6)}),
        ("111001x1" + "1" * 52, 2, {n: f"/{n:06d}.jpg: cannot be decoded" for n in (4, 6)}),
        ("111001x1" + "1" * 52, 5, {}),
        # nothing comes any more
        ("11" + "0" * 58, 1, {2: "ended after 2 of about 60 frames"}),
    ],
)
def test_frames_that_are_lost_are_those_that_were_asked_for(tmp_path, captures, frames, every, lost):
    """Of a video that says that it has 60: 1 comes, 0 cannot be grabbed, x not decoded."""
    path = tmp_path / "clip.mkv"
    path.touch()
    kinds = {"1": lambda number: shot(number, 3), "0": lambda _: None, "x": lambda _: "torn"}
    captures.scripts[str(path)] = [kinds[kind](number) for number, kind in enumerate(frames)]
    captures.get = lambda _, name: 60 if name == cv2.CAP_PROP_FRAME_COUNT else 10
    found = frames_of(path, every)
    numbers = [frame.number for frame in found]
    assert numbers == sorted(set(numbers))
    read = [number for number, kind in enumerate(frames) if kind == "1" and number % every == 0]
    assert [frame.number for frame in found if frame.error is None] == read
    assert all(int(frame.image.mean()) == frame.number for frame in found if frame.error is None)
    errors = {frame.number: frame.error for frame in found if frame.error}
    assert errors.keys() == lost.keys()
    assert all(error.endswith(lost[number]) for number, error in errors.items())


def test_the_way_into_a_camera_is_nobody_elses(captures, clock):
    address = "rtsp://user:p@ss@camera.local:554/street"
    captures.scripts[address] = [shot(1, 3)]
    (part,) = open_source(address)
    assert part.name == "rtsp://camera.local:554/street"
    (frame,) = read_frames(part)
    assert frame.source == part.name and frame.name.as_posix() == "rtsp-camera.local:554/street/000000.jpg"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "nowhere.jpg",
            "source: expected a folder, a glob, an image or a video, got nowhere.jpg, which does not exist",
        ),
        (
            "97",
            "source: expected a camera's number or a stream's address, got camera-97, which cannot be opened",
        ),
        (97, "got camera-97, which cannot be opened"),
        ("file:///nowhere", "got file:///nowhere, which cannot be opened"),
    ],
)
def test_a_source_that_is_not_there_is_one_line(source, message):
    with pytest.raises(InputError, match=message):
        open_source(source)


def test_a_single_broken_video_is_an_error(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 99)
    with pytest.raises(InputError, match=r"bad\.mp4: expected a video, got a broken file"):
        open_source(tmp_path / "bad.mp4")


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"source: expected images or videos, got .*, without any"):
        open_source(tmp_path)


def shot(value, *channels):
    return np.full((4, 6, *channels), value, np.uint8)


def test_a_camera_gives_frames_until_nothing_comes(captures, clock):
    bgr = np.dstack([shot(1), shot(2), shot(3)])
    captures.scripts[0] = [bgr, shot(7), shot(9, 1), np.dstack([bgr, shot(255)])]
    (part,) = open_source("0")
    assert (part.name, part.kind, part.frames, part.rate) == ("camera-0", "live", None, 25.0)
    assert open_source(0) == [part] and not captures.open_now
    frames = list(read_frames(part))
    assert [frame.image[0, 0].tolist() for frame in frames] == [[3, 2, 1], [7] * 3, [9] * 3, [3, 2, 1]]
    assert [frame.name.as_posix() for frame in frames] == [f"camera-0/00000{n}.jpg" for n in range(4)]
    times = [frame.seconds for frame in frames]
    assert times == sorted(set(times)) and times[-1] < 0.1
    # it waited, but not for ever
    assert 3 < clock.now < 4 and not captures.open_now


def test_a_camera_may_fail_for_a_moment(captures, clock):
    address = "rtsp://camera.local/street"
    captures.scripts[address] = [
        shot(1, 3),
        *[None] * 40,
        shot(2, 3),
        "torn",
        shot(3, 3),
        *[None] * 90,
        shot(4, 3),
    ]
    (part,) = open_source(address)
    frames = list(read_frames(part))
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.error for frame in frames] == [
        None, None, "rtsp-camera.local/street/000002.jpg: cannot be decoded", None,
    ]  # fmt: skip
    assert [frame.number for frame in read_frames(part, every=2)] == [0, 2]


@pytest.mark.parametrize("script", [[], [None] * 99, ["torn"] * 5])
def test_a_camera_that_gives_nothing_is_named(captures, clock, script):
    captures.scripts[3] = script
    (part,) = open_source(3)
    with pytest.raises(
        InputError, match="source: expected a camera or a stream that gives frames, got camera-3"
    ):
        assert all(frame.image is None for frame in read_frames(part))


def test_a_camera_that_is_gone_or_taken_is_named(captures):
    captures.scripts[0] = [shot(1, 3)]
    (part,) = open_source(0)
    captures.open_now.add(0)
    with pytest.raises(InputError, match="got camera-0, which can be opened no more"):
        next(read_frames(part))
    with pytest.raises(InputError, match="got camera-0, which cannot be opened"):
        open_source(0)
