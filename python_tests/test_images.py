from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.images import encode_image, read_image, save_image

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, IMAGE)[1].tobytes()


def test_lossless_image_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(".png"))
    image = read_image(tmp_path / "a.png", (40, 60))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, IMAGE[..., ::-1])


def test_grey_image_has_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), IMAGE[..., 0])
    image = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(image, np.repeat(IMAGE[..., :1], 3, axis=2))


def test_orientation_tag_is_not_applied(tmp_path: Path) -> None:
    # an APP1 segment with one tag: orientation 6, a quarter turn
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    segment = b"Exif\x00\x00" + tiff
    jpeg = encoded(".jpg")
    turned = jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]
    (tmp_path / "turned.jpg").write_bytes(turned)
    assert cv2.imread(str(tmp_path / "turned.jpg")).shape == (60, 40, 3)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_cut_off_image(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"cut{suffix}"
    content = encoded(suffix)
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=f"cut{suffix}: expected a"):
        read_image(path)


def test_cut_off_jpeg_is_told_from_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # as OpenCV versions do that fill the rest with grey
    monkeypatch.setattr(cv2, "imdecode", lambda *_: IMAGE)
    content = encoded(".jpg")
    path = tmp_path / "cut.jpg"
    # a thumbnail inside has an end of its own
    thumbnail = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    for image in (content[:-300], content[:2] + thumbnail + content[2:-300]):
        path.write_bytes(image)
        with pytest.raises(InputError, match=r"cut\.jpg: .*cut off"):
            read_image(path)
    for image in (content, content + b"\x00" * 500, content[:2] + thumbnail + content[2:]):
        path.write_bytes(image)
        assert read_image(path) is IMAGE


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"\x00" * 99, "broken"), (b"hello", "broken")]
)
def test_broken_image(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"broken\.jpg: .*{message}"):
        read_image(path)


def test_missing_image_and_other_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: .*No such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "a.png").write_bytes(encoded(".png"))
    with pytest.raises(InputError, match=r"a\.png: expected height 60, width 40 .*got height 40, width 60"):
        read_image(tmp_path / "a.png", (60, 40))


def png_header(width: int, height: int) -> bytes:
    data = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + data + zlib.crc32(data).to_bytes(4, "big")


def test_header_that_promises_more_than_the_file_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    path = tmp_path / "vast.img"
    path.write_bytes(png_header(30000, 30000))
    with pytest.raises(InputError, match=r"vast\.img: .*promises 30000x30000 pixels"):
        read_image(path)
    jpeg = bytearray(encoded(".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    path.write_bytes(jpeg)
    with pytest.raises(InputError, match=r"vast\.img: .*cut off"):
        read_image(path)


def test_what_opencv_does_not_allocate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vast.bmp"
    bmp = bytearray(encoded(".bmp"))
    bmp[18:26] = (60000).to_bytes(4, "little") * 2
    path.write_bytes(bmp)
    with pytest.raises(InputError, match=r"vast\.bmp: expected an image"):
        read_image(path)


def test_red_comes_first(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((2, 3, 3), (0, 0, 255), np.uint8))
    assert read_image(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]


def test_a_saved_image_is_read_back(tmp_path: Path) -> None:
    save_image(IMAGE, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), IMAGE)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_quality_is_jpegs() -> None:
    assert len(encode_image(IMAGE, ".jpg", jpeg_quality=50)) < len(encode_image(IMAGE, ".jpg"))
    assert encode_image(IMAGE, ".png", jpeg_quality=50) == encode_image(IMAGE, ".png")


def test_an_unknown_format_writes_nothing(tmp_path: Path) -> None:
    for name in ("a.unheard", "a"):
        with pytest.raises(InputError, match=r"suffix of an image format, such as \.png"):
            save_image(IMAGE, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "width"), [(".jpg", 66_000), (".webp", 20_000)])
def test_formats_have_a_largest_size(suffix: str, width: int) -> None:
    with pytest.raises(
        InputError, match=rf"image: expected an image that \{suffix} can hold, got \(4, {width}, 3\)"
    ):
        encode_image(np.zeros((4, width, 3), np.uint8), suffix)


def turned_jpeg(tag: int) -> bytes:
    """The image as a JPEG with an EXIF orientation tag."""
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([tag, 0, 0, 0])
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + entry + bytes(4)
    content = encoded(".jpg")
    return content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]


@pytest.mark.parametrize(
    ("tag", "turn"),
    [
        (1, lambda image: image),
        (3, lambda image: image[::-1, ::-1]),
        (6, lambda image: image.swapaxes(0, 1)[:, ::-1]),
        (8, lambda image: image.swapaxes(0, 1)[::-1]),
    ],
)
def test_an_orientation_tag_is_applied_on_demand(
    tmp_path: Path, tag: int, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    (tmp_path / "a.jpg").write_bytes(turned_jpeg(tag))
    stored = read_image(tmp_path / "a.jpg", (40, 60))
    upright = read_image(tmp_path / "a.jpg", turn(stored).shape[:2], upright=True)
    np.testing.assert_array_equal(upright, turn(stored))


def test_a_size_that_a_tag_explains_names_the_tag(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(turned_jpeg(6))
    with pytest.raises(InputError, match=r"height 60, width 40 .*got height 40, width 60 as stored, .*EXIF"):
        read_image(tmp_path / "a.jpg", (60, 40))
    (tmp_path / "a.jpg").write_bytes(turned_jpeg(3))
    with pytest.raises(InputError, match=r"got height 40, width 60$"):
        read_image(tmp_path / "a.jpg", (60, 40))
